"""How many tokens masks leave, without torch: what a step costs depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from salt_plugin.compute.cost import Tokens
from salt_plugin.errors import ConfigError
from salt_plugin.hidden_places import MultiBlocks, Tubes
from salt_plugin.shapes import Grid

KNOWN: dict[str, type[MultiBlocks] | type[Tubes]] = {
    "salt_plugin.masks.MultiBlockMasks": MultiBlocks,
    "salt_plugin.masks.TubeMasks": Tubes,
}


def draw_lengths(
    masks_config: Mapping[str, Any], grid: Grid, batch_size: int, draws: int, seed: int
) -> list[list[Tokens]]:
    """Draws the token counts of the mask sets of batches, as the masks of that node would.

    Index lists are cut to the shortest of a device's batch, so the counts fall as it grows, and
    vary from batch to batch with the size of a block (the paper, section 2 of its method).

    Args:
        masks_config: The node `method.masks`: `_target_` and arguments.
        grid: Token grid of a clip.
        batch_size: Clips of one device.
        draws: Number of batches; one does where all are alike, as with tubes.
        seed: Of the draws.

    Returns:
        For each batch the token counts of its mask sets. They add up to no more than the grid.

    Raises:
        ConfigError: The class is not one of ours, or a number cannot work.
    """
    target = masks_config.get("_target_")
    if target not in KNOWN:
        raise ConfigError(
            f"method.masks._target_={target!r}: how many tokens these masks leave is not known "
            f"before training; expected one of {', '.join(KNOWN)}"
        )
    arguments = {key: value for key, value in masks_config.items() if key != "_target_"}
    masks = KNOWN[target](**arguments)
    frames, height, width = grid
    if isinstance(masks, Tubes):
        masked = masks.count(height * width)
        tokens = Tokens(frames * (height * width - masked), frames * masked)
        return [[tokens] * masks.num_sets]
    random = _NumpyRandom(seed)
    return [
        [
            _shortest(masks.hidden(spec, batch_size, height, width, random), frames)
            for spec in masks.specs
        ]
        for _ in range(draws)
    ]


def _shortest(hidden_bs: np.ndarray, frames: int) -> Tokens:
    hidden_b, places = hidden_bs.sum(1), hidden_bs.shape[1]
    return Tokens(int(places - hidden_b.max()) * frames, int(hidden_b.min()) * frames)


class _NumpyRandom:
    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def uniform(self) -> float:
        return float(self._generator.random())

    def integers(self, bound: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._generator.integers(0, bound, shape)
