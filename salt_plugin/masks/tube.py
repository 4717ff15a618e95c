"""Random tubes: tokens masked at the same places in all frames."""

from __future__ import annotations

import numpy as np

from salt_plugin.errors import ConfigError
from salt_plugin.masks.generator import MaskGenerator
from salt_plugin.shapes import Grid, Tokens


class TubeMasks(MaskGenerator):
    """VideoMAE's random tubes, one or more sets a clip (paper, mask ablation).

    Args:
        ratio: Share of the spatial places that are masked.
        num_sets: Independent mask sets a clip.

    Raises:
        ConfigError: The ratio is not inside (0, 1), or there is no set.
    """

    def __init__(self, ratio: float = 0.9, num_sets: int = 2) -> None:
        if not 0 < ratio < 1 or not isinstance(num_sets, int) or num_sets < 1:
            raise ConfigError(
                f"method.masks: ratio={ratio}, num_sets={num_sets}; need 0 < ratio < 1 and a "
                "whole number of sets, at least one"
            )
        self.ratio = ratio
        self.num_sets = num_sets

    def counts(self, number: int, grid: Grid) -> Tokens:
        """Returns how many tokens are seen and predicted: as many in every clip.

        Raises:
            ConfigError: The grid is so small that nothing or everything would be masked.
        """
        frames, height, width = grid
        places = height * width
        masked = round(self.ratio * places)
        if not 0 < masked < places:
            raise ConfigError(
                f"method.masks.ratio={self.ratio} masks {masked} of {places} places; use larger "
                "clips or another ratio"
            )
        return Tokens((places - masked) * frames, masked * frames)

    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        """Draws the tubes of a mask set: bool [B, H * W].

        Raises:
            ConfigError: See `counts`.
        """
        masked = self.counts(number, grid).target // grid[0]
        places = grid[1] * grid[2]
        return of_group.random((clips, places)).argsort(1).argsort(1) < masked
