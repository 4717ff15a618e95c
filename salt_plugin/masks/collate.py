"""Collation: clips of a batch together with the masks drawn for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from salt_plugin.masks.types import MaskGenerator, MaskSet
from salt_plugin.shapes import Grid
from salt_plugin.transforms.normalization import Normalization


class Key(Protocol):
    """Where a sample stands in the stream."""

    @property
    def step(self) -> int: ...  # noqa: D102


class Item(Protocol):
    """What a data set gives for one sample."""

    @property
    def clip(self) -> Tensor: ...  # noqa: D102
    @property
    def label(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> Key: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def skipped(self) -> list[tuple[str, str]]: ...  # noqa: D102


class Batch(NamedTuple):
    """A training batch.

    Attributes:
        clips: [B, C, T, H, W] of uint8, or of floats that are normalised; see `normalized`.
        labels: int64 [B], -1 where there is none.
        masks: The mask sets drawn for this batch.
        step: The optimiser step that this batch is for.
        skipped: (path, reason) of files that could not be read and were replaced.
        paths: The file of each clip.
        normalization: What clips of uint8 are normalised by.
    """

    clips: Tensor
    labels: Tensor
    masks: list[MaskSet]
    step: int = 0
    skipped: Sequence[tuple[str, str]] = ()
    paths: Sequence[str] = ()
    normalization: Normalization = Normalization()

    def normalized(self) -> Tensor:
        """Returns the clips as encoders take them, float32, on the device that they are on."""
        return self.normalization(self.clips)

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """Returns the batch with its tensors on a device; see `torch.Tensor.to`."""
        return self._replace(
            clips=self.clips.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            masks=[mask.to(device, non_blocking) for mask in self.masks],
        )


class MaskCollator:
    """Stacks samples and adds masks that are a function of (seed, step, rank) alone.

    So the number of loader workers does not change them, and the step in a checkpoint is all
    the state there is.

    Args:
        masks: Draws the mask sets.
        grid: Token grid of a clip.
        seed: Seed of the run.
        rank: Which of the processes that train together this is.
    """

    def __init__(self, masks: MaskGenerator, grid: Grid, seed: int, rank: int = 0) -> None:
        self.masks = masks
        self.grid = grid
        self.seed = seed
        self.rank = rank

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Collates the samples of one step."""
        step = items[0].key.step
        return Batch(
            clips=torch.stack([item.clip for item in items]),
            labels=torch.tensor([item.label for item in items]),
            masks=self.masks(len(items), self.grid, self._generator(step)),
            step=step,
            skipped=[entry for item in items for entry in item.skipped],
            paths=[item.path for item in items],
            # A data set of one's own may know of none.
            normalization=getattr(items[0], "normalization", Normalization()),
        )

    def _generator(self, step: int) -> torch.Generator:
        entropy = np.random.SeedSequence((self.seed, self.rank, step)).generate_state(2)
        return torch.Generator().manual_seed(int.from_bytes(entropy.tobytes(), "little") >> 1)
