"""What draws masks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from salt_plugin.shapes import Grid, Tokens


class MaskGenerator(ABC):
    """Draws what mask sets hide; derive from it to add masks of your own.

    Attributes:
        num_sets: Mask sets of a clip.
        local_views: Of the mask sets, those at the end that are of further, smaller views.
    """

    num_sets: int
    local_views: int = 0

    def grid(self, number: int, clip_grid: Grid) -> Grid:
        """Returns the token grid of the view that a mask set is of: here that of the clip.

        Args:
            number: Which mask set.
            clip_grid: Of the clip.
        """
        return clip_grid

    def counts(self, number: int, grid: Grid) -> Tokens | None:
        """Returns the token counts where all clips have the same; None where they are drawn.

        Args:
            number: Which mask set.
            grid: Of its view.
        """
        return None

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
            grid: Token grid of the view, N = T * H * W.
            of_step: Draws the same numbers in every group of the step. Draw from it what the cost
                depends on, such as the size of a block, so that all devices have as much to do.
            of_group: Draws what only this group has.

        Returns:
            bool [B, N], true where a token is hidden from the encoder and to be predicted; or
            [B, H * W] where that is the same in all frames. Of each clip something is hidden, and
            something is not.
        """
