"""What draws masks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from salt_plugin.shapes import Grid


class MaskGenerator(ABC):
    """Draws what mask sets hide; derive from it to add masks of your own.

    Attributes:
        num_sets: Mask sets of a clip.
    """

    num_sets: int

    @abstractmethod
    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        """Draws what one mask set hides of the clips of a group.

        The result depends on the arguments alone: planning, training and every loader worker call
        this for the same step and have to get the same masks.

        Args:
            number: Which mask set, from 0 to `num_sets` - 1.
            clips: Clips of the group, B.
            grid: Token grid of a clip, N = T * H * W.
            of_step: Draws the same numbers in every group of the step. Draw from it what the cost
                depends on, such as the size of a block, so that all devices have as much to do.
            of_group: Draws what only this group has.

        Returns:
            bool [B, N], true where a token is hidden from the encoder and to be predicted; or
            [B, H * W] where that is the same in all frames. Of each clip something is hidden, and
            something is not.
        """
