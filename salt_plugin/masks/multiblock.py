"""V-JEPA's multi-block masks: unions of blocks that span all frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from salt_plugin.errors import ConfigError
from salt_plugin.masks.types import MaskGenerator, MaskSet, split_by_mask
from salt_plugin.shapes import Grid

MAX_REDRAWS = 1000


@dataclass(frozen=True)
class BlockSpec:
    """One mask set: ``num_blocks`` blocks, each ``scale`` of the spatial area."""

    num_blocks: int
    scale: float


class MultiBlockMasks(MaskGenerator):
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

    def __init__(
        self,
        short_range: BlockSpec | dict[str, float] = BlockSpec(8, 0.15),
        long_range: BlockSpec | dict[str, float] = BlockSpec(2, 0.7),
        aspect_ratio: Sequence[float] = (0.75, 1.5),
    ) -> None:
        self.specs = [_checked("short_range", short_range), _checked("long_range", long_range)]
        ratios = [float(ratio) for ratio in aspect_ratio]
        if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
            raise ConfigError(
                f"method.masks.aspect_ratio={list(aspect_ratio)}: need 0 < lowest <= highest"
            )
        self.aspect_ratio = (ratios[0], ratios[1])

    def __call__(self, batch_size: int, grid: Grid, generator: torch.Generator) -> list[MaskSet]:
        """Draws the two mask sets of a batch."""
        return [self._draw(spec, batch_size, grid, generator) for spec in self.specs]

    def _draw(
        self, spec: BlockSpec, batch_size: int, grid: Grid, generator: torch.Generator
    ) -> MaskSet:
        frames, height, width = grid
        block = self._block_size(spec, height, width, generator)
        spatial = _union(spec.num_blocks, block, batch_size, height, width, generator)
        for _ in range(MAX_REDRAWS):
            full = spatial.all(1)
            if not full.any():
                break
            redrawn = _union(spec.num_blocks, block, int(full.sum()), height, width, generator)
            spatial[full] = redrawn
        else:
            raise ConfigError(
                f"method.masks: {spec.num_blocks} blocks of {block[0]}x{block[1]} tokens leave no "
                f"context on a grid of {height}x{width}; lower scale or num_blocks, or use larger "
                "clips"
            )
        return split_by_mask(spatial, frames)

    def _block_size(
        self, spec: BlockSpec, height: int, width: int, generator: torch.Generator
    ) -> tuple[int, int]:
        low, high = self.aspect_ratio
        ratio = low + (high - low) * torch.rand(1, generator=generator).item()
        area = int(height * width * spec.scale)
        # V-JEPA's rounding; on grids of a few tokens it alone could give an empty block.
        rows = min(height, max(1, round(math.sqrt(area * ratio))))
        cols = min(width, max(1, round(math.sqrt(area / ratio))))
        return rows, cols


def _checked(key: str, spec: BlockSpec | dict[str, float]) -> BlockSpec:
    if not isinstance(spec, BlockSpec):
        if set(spec) != {"num_blocks", "scale"}:
            raise ConfigError(
                f"method.masks.{key} has the keys {sorted(spec)}; expected num_blocks and scale"
            )
        spec = BlockSpec(int(spec["num_blocks"]), float(spec["scale"]))
    if spec.num_blocks < 1 or not 0 < spec.scale < 1:
        raise ConfigError(
            f"method.masks.{key}: num_blocks={spec.num_blocks}, scale={spec.scale}; need at least "
            "one block and 0 < scale < 1"
        )
    return spec


def _union(
    num_blocks: int,
    block: tuple[int, int],
    batch_size: int,
    height: int,
    width: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Returns bool [B, height * width]: true inside any of the blocks."""
    rows, cols = block
    shape = (batch_size, num_blocks, 1)
    top = torch.randint(0, height - rows + 1, shape, generator=generator).numpy()
    left = torch.randint(0, width - cols + 1, shape, generator=generator).numpy()
    # Unsigned, what lies before a block's start is far beyond its end: one comparison does.
    in_rows_bnh = ((np.arange(height) - top).view(np.uint64) < rows).astype(np.float32)
    in_cols_bnw = ((np.arange(width) - left).view(np.uint64) < cols).astype(np.float32)
    # The product over blocks counts how many cover a place.
    return (in_rows_bnh.transpose(0, 2, 1) @ in_cols_bnw > 0).reshape(batch_size, -1)
