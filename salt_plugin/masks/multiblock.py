"""V-JEPA's multi-block masks: unions of blocks that span all frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from salt_plugin.hidden_places import MultiBlocks
from salt_plugin.masks.types import MaskGenerator, MaskSet, split_by_mask
from salt_plugin.shapes import Grid


class MultiBlockMasks(MultiBlocks, MaskGenerator):
    """Multi-block masks, short and long range (the paper's masks, drawn as V-JEPA's collator does).

    A set is the union of blocks that cover all frames. The size of a block is drawn once a
    batch, its places for every clip. The encoder keeps the complement and the predictor fills
    in the union; both lists are cut to the shortest in the batch.

    Args:
        short_range: ``num_blocks`` and ``scale`` of the first set (printed scale: 0.15; the
            number 8 is V-JEPA's).
        long_range: The same of the second set (printed scale: 0.7; the number 2 is V-JEPA's).
        aspect_ratio: Range of a block's height over width, drawn uniformly.

    Raises:
        ConfigError: A number is out of range.
    """

    def __call__(self, batch_size: int, grid: Grid, generator: torch.Generator) -> list[MaskSet]:
        """Draws the two mask sets of a batch."""
        frames, height, width = grid
        random = _TorchRandom(generator)
        return [
            split_by_mask(self.hidden(spec, batch_size, height, width, random), frames)
            for spec in self.specs
        ]


@dataclass(frozen=True)
class _TorchRandom:
    generator: torch.Generator

    def uniform(self) -> float:
        return torch.rand(1, generator=self.generator).item()

    def integers(self, bound: int, shape: tuple[int, ...]) -> np.ndarray:
        return torch.randint(0, bound, shape, generator=self.generator).numpy()
