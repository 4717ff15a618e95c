"""Which places of a frame masks hide; no torch, so that planning can draw them too.

`masks/` turns them into index lists with torch's randomness, `compute/` counts them with numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from salt_plugin.errors import ConfigError

MAX_REDRAWS = 1000


class Random(Protocol):
    """Where randomness comes from."""

    def uniform(self) -> float:
        """Returns a number from [0, 1)."""

    def integers(self, bound: int, shape: tuple[int, ...]) -> np.ndarray:
        """Returns int64 of that shape, from 0 to `bound` - 1."""


@dataclass(frozen=True)
class BlockSpec:
    """One mask set: ``num_blocks`` blocks, each ``scale`` of the spatial area."""

    num_blocks: int
    scale: float


class MultiBlocks:
    """What V-JEPA's multi-block masks hide: unions of blocks, one union for each set.

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

    def hidden(
        self, spec: BlockSpec, batch_size: int, height: int, width: int, random: Random
    ) -> np.ndarray:
        """Returns what one set of a batch hides: bool [B, height * width], never all of a clip.

        Raises:
            ConfigError: The blocks cover the grid wherever they lie.
        """
        block = self._block_size(spec, height, width, random)
        hidden_bs = _union(spec.num_blocks, block, batch_size, height, width, random)
        for _ in range(MAX_REDRAWS):
            full = hidden_bs.all(1)
            if not full.any():
                break
            redrawn = _union(spec.num_blocks, block, int(full.sum()), height, width, random)
            hidden_bs[full] = redrawn
        else:
            raise ConfigError(
                f"method.masks: {spec.num_blocks} blocks of {block[0]}x{block[1]} tokens leave no "
                f"context on a grid of {height}x{width}; lower scale or num_blocks, or use larger "
                "clips"
            )
        return hidden_bs

    def _block_size(
        self, spec: BlockSpec, height: int, width: int, random: Random
    ) -> tuple[int, int]:
        low, high = self.aspect_ratio
        ratio = low + (high - low) * random.uniform()
        area = int(height * width * spec.scale)
        # V-JEPA's rounding; on grids of a few tokens it alone could give an empty block.
        rows = min(height, max(1, round(math.sqrt(area * ratio))))
        cols = min(width, max(1, round(math.sqrt(area / ratio))))
        return rows, cols


class Tubes:
    """What random tubes hide: the same share of the places of every clip and set.

    Args:
        ratio: Share of the spatial places that are masked.
        num_sets: Independent mask sets a clip.

    Raises:
        ConfigError: The ratio is not inside (0, 1), or there is no set.
    """

    def __init__(self, ratio: float = 0.9, num_sets: int = 2) -> None:
        if not 0 < ratio < 1 or num_sets < 1:
            raise ConfigError(
                f"method.masks: ratio={ratio}, num_sets={num_sets}; need 0 < ratio < 1 and at "
                "least one set"
            )
        self.ratio = ratio
        self.num_sets = num_sets

    def count(self, places: int) -> int:
        """Returns how many of the places of a frame are hidden.

        Raises:
            ConfigError: The grid is so small that nothing or everything would be.
        """
        masked = round(self.ratio * places)
        if not 0 < masked < places:
            raise ConfigError(
                f"method.masks.ratio={self.ratio} masks {masked} of {places} places; use larger "
                "clips or another ratio"
            )
        return masked


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
    random: Random,
) -> np.ndarray:
    """Returns bool [B, height * width]: true inside any of the blocks."""
    rows, cols = block
    shape = (batch_size, num_blocks, 1)
    top = random.integers(height - rows + 1, shape)
    left = random.integers(width - cols + 1, shape)
    # Unsigned, what lies before a block's start is far beyond its end: one comparison does.
    in_rows_bnh = ((np.arange(height) - top).view(np.uint64) < rows).astype(np.float32)
    in_cols_bnw = ((np.arange(width) - left).view(np.uint64) < cols).astype(np.float32)
    # The product over blocks counts how many cover a place.
    return (in_rows_bnh.transpose(0, 2, 1) @ in_cols_bnw > 0).reshape(batch_size, -1)
