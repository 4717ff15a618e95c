"""V-JEPA's multi-block masks: unions of blocks that span all frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salt_plugin.errors import ConfigError
from salt_plugin.masks.generator import MaskGenerator
from salt_plugin.shapes import Grid

MAX_REDRAWS = 1000


@dataclass(frozen=True)
class BlockSpec:
    """One mask set: ``num_blocks`` blocks, each ``scale`` of the spatial area.

    Raises:
        ConfigError: A number is out of range.
    """

    num_blocks: int
    scale: float

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not isinstance(self.num_blocks, int) or self.num_blocks < 1 or not 0 < self.scale < 1:
            raise ConfigError(
                f"num_blocks={self.num_blocks}, scale={self.scale}; need a whole number of blocks, "
                "at least one, and 0 < scale < 1"
            )


def _spec(name: str, given: BlockSpec | dict[str, float]) -> BlockSpec:
    try:
        return given if isinstance(given, BlockSpec) else BlockSpec(**given)  # type: ignore[arg-type]
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"method.masks.{name}={given}: {error}") from None


class MultiBlockMasks(MaskGenerator):
    """Multi-block masks, short and long range (the paper's masks, drawn as V-JEPA's collator does).

    A set is the union of blocks that cover all frames. The size of a block is drawn once a step,
    its places for every clip. The encoder keeps the complement and the predictor fills in the
    union.

    Args:
        short_range: ``num_blocks`` and ``scale`` of the first set (printed scale: 0.15; the
            number 8 is V-JEPA's).
        long_range: The same of the second set (printed scale: 0.7; the number 2 is V-JEPA's).
        aspect_ratio: Range of a block's height over width, drawn uniformly.
        max_temporal_keep: Share of the frames that the encoder may see, the first ones; all later
            frames are predicted (V-JEPA's name; 1 in its and the paper's recipes).

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        short_range: BlockSpec | dict[str, float] = BlockSpec(8, 0.15),
        long_range: BlockSpec | dict[str, float] = BlockSpec(2, 0.7),
        aspect_ratio: Sequence[float] = (0.75, 1.5),
        max_temporal_keep: float = 1.0,
    ) -> None:
        self.specs = [_spec("short_range", short_range), _spec("long_range", long_range)]
        self.num_sets = len(self.specs)
        ratios = [float(ratio) for ratio in aspect_ratio]
        if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
            raise ConfigError(
                f"method.masks.aspect_ratio={list(aspect_ratio)}: need 0 < lowest <= highest"
            )
        self.aspect_ratio = (ratios[0], ratios[1])
        if not 0 < max_temporal_keep <= 1:
            raise ConfigError(
                f"method.masks.max_temporal_keep={max_temporal_keep}: need more than 0, at most 1"
            )
        self.max_temporal_keep = max_temporal_keep

    def __eq__(self, other: object) -> bool:
        """Tells whether both draw the same; planning many runs then draws once."""
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        """Returns the same number for generators that draw the same."""
        return hash((*self.specs, self.aspect_ratio, self.max_temporal_keep))

    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        """Draws the blocks of a mask set: bool [B, H * W], or [B, T * H * W] with late frames.

        Raises:
            ConfigError: The blocks cover the grid wherever they lie.
        """
        frames, height, width = grid
        spec = self.specs[number]
        ratio, area = of_step.uniform(*self.aspect_ratio), int(height * width * spec.scale)
        # V-JEPA's rounding; on grids of a few tokens it alone could give an empty block.
        rows = min(height, max(1, round(math.sqrt(area * ratio))))
        cols = min(width, max(1, round(math.sqrt(area / ratio))))
        hidden_bs = np.ones((clips, height * width), dtype=bool)
        for _ in range(MAX_REDRAWS):
            full = hidden_bs.all(1)
            if not full.any():
                return self._with_late_frames(hidden_bs, frames)
            shape = (int(full.sum()), spec.num_blocks)
            hidden_bs[full] = _union(shape, (rows, cols), (height, width), of_group)
        raise ConfigError(
            f"method.masks: {spec.num_blocks} blocks of {rows}x{cols} tokens leave no context on a "
            f"grid of {height}x{width}; lower scale or num_blocks, or use larger clips"
        )

    def _with_late_frames(self, hidden_bs: np.ndarray, frames: int) -> np.ndarray:
        """Hides all of the frames that the encoder may not see."""
        seen = max(1, int(frames * self.max_temporal_keep))  # V-JEPA's rounding
        if seen == frames:
            return hidden_bs
        hidden_bts = hidden_bs[:, None].repeat(frames, axis=1)
        hidden_bts[:, seen:] = True
        return hidden_bts.reshape(len(hidden_bs), -1)


def _union(
    shape: tuple[int, int],
    block: tuple[int, int],
    grid: tuple[int, int],
    random: np.random.Generator,
) -> np.ndarray:
    """Returns bool [B, H * W]: true inside any of the N blocks of a clip, `shape` being (B, N)."""
    (rows, cols), (height, width) = block, grid
    top = random.integers(0, height - rows + 1, (*shape, 1))
    left = random.integers(0, width - cols + 1, (*shape, 1))
    # Unsigned, what lies before a block's start is far beyond its end: one comparison does.
    in_rows_bnh = ((np.arange(height) - top).view(np.uint64) < rows).astype(np.float32)
    in_cols_bnw = ((np.arange(width) - left).view(np.uint64) < cols).astype(np.float32)
    # The product over blocks counts how many cover a place.
    return (in_rows_bnh.transpose(0, 2, 1) @ in_cols_bnw > 0).reshape(len(top), -1)
