"""Random tubes: tokens masked at the same places in all frames."""

from __future__ import annotations

import torch

from salt_plugin.hidden_places import Tubes
from salt_plugin.masks.types import MaskGenerator, MaskSet, split_by_mask
from salt_plugin.shapes import Grid


class TubeMasks(Tubes, MaskGenerator):
    """VideoMAE's random tubes, one or more sets a clip (paper, mask ablation).

    Args:
        ratio: Share of the spatial places that are masked.
        num_sets: Independent mask sets a clip.

    Raises:
        ConfigError: The ratio is not inside (0, 1), or there is no set.
    """

    def __call__(self, batch_size: int, grid: Grid, generator: torch.Generator) -> list[MaskSet]:
        """Draws the mask sets of a batch.

        Raises:
            ConfigError: The grid is so small that nothing or everything would be masked.
        """
        frames, height, width = grid
        places = height * width
        masked = self.count(places)
        sets = []
        for _ in range(self.num_sets):
            ranks = torch.rand(batch_size, places, generator=generator).argsort(1).argsort(1)
            sets.append(split_by_mask(ranks < masked, frames))
        return sets
