"""The order in which training meets the videos: a function of the seed and the position alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from salt_plugin.errors import ConfigError, DataError
from salt_plugin.masks import split

# The last word of each seed: clips (`data.dataset`) and masks (`masks.step`) have other ones.
_OF_ORDERS = 0x6F726472


class SampleKey(NamedTuple):
    """One place of the training stream.

    Attributes:
        step: Training step.
        slot: Place among the clips of the step, over all devices.
        index: Number of the video.
    """

    step: int
    slot: int
    index: int  # type: ignore[assignment]


def micro_batches(clips: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[range]:
    """Returns the slots of a step that a device trains on at once, one micro-batch after the other.

    Devices take consecutive slots whose numbers differ by at most one, in as many micro-batches
    each, which are as equal as they can be. Where devices hold one clip at once, one that has a
    clip less than others has a micro-batch less.

    Args:
        clips: Of a step over all devices.
        batch_size: Clips that a device holds at once, at most.
        rank: The device.
        world_size: Number of devices.
    """
    most = math.ceil(math.ceil(clips / world_size) / batch_size)
    own = split(range(clips), world_size)[rank]
    return split(own, min(most, len(own)))


@dataclass(eq=False, repr=False)
class StepBatchSampler(Sampler[list[SampleKey]]):
    """Yields a list of keys for each micro-batch of each training step.

    The video at a place depends on the seed and on the global position `step * clips + slot` only:
    neither on the number of workers, nor on where a run was stopped and resumed, nor on how a step
    is split over devices and micro-batches.

    Without weights each epoch is a permutation of all videos; steps run across epochs, so small
    sets wrap. With weights a source is drawn with probability proportional to its weight, then a
    video uniformly in it, with replacement.

    Args:
        num_samples: Number of videos.
        clips: Clips of a step, over all devices.
        batch_size: Clips that a device holds at once, at most.
        total_steps: Steps of the whole run; None has no end.
        seed: Seed of the stream.
        start_step: First step to yield, when a run resumes.
        rank: This process among all.
        world_size: Number of processes, one for each device.
        shuffle: Whether epochs are permuted; otherwise videos come in their order.
        source: The source of each video, numbered from 0; needed with weights.
        weights: A weight for each source, proportional to how often it is drawn.

    Raises:
        DataError: If there are no videos, or a source with a positive weight has none.
        ConfigError: If the numbers or the weights cannot work.
    """

    num_samples: int
    clips: int
    batch_size: int
    total_steps: int | None
    seed: int
    start_step: int = 0
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    source: list[int] | None = None
    weights: list[float] | None = None
    _epoch: tuple[int, np.ndarray] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.num_samples < 1:
            raise DataError("there are no videos to sample from: expected at least 1.")
        if self.clips < self.world_size:
            raise ConfigError(
                f"method.global_batch_size={self.clips}: expected at least the {self.world_size} "
                "devices."
            )
        self._slots = micro_batches(self.clips, self.batch_size, self.rank, self.world_size)
        self._mixture: _Mixture | None = None
        if self.weights is not None:
            self._mixture = _Mixture(self.source or [], self.weights, self.seed)

    def __len__(self) -> int:
        """Micro-batches of the whole run on this device.

        Raises:
            TypeError: It has no end.
        """
        if self.total_steps is None:
            raise TypeError("the stream has no end")
        return self.total_steps * len(self._slots)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yields this rank's micro-batches from start_step on."""
        draw = self._ordered if self._mixture is None else self._mixture
        for step in count(self.start_step):
            if self.total_steps is not None and step >= self.total_steps:
                return
            for slots in self._slots:
                indices = draw(step * self.clips + np.arange(slots.start, slots.stop))
                pairs = zip(slots, indices.tolist(), strict=True)
                yield [SampleKey(step, slot, index) for slot, index in pairs]

    def _ordered(self, positions: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(positions, self.num_samples)
        if not self.shuffle:
            return places
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(int(epoch))[places[here]]
        return indices

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch, _OF_ORDERS))
            self._epoch = epoch, np.random.default_rng(sequence).permutation(self.num_samples)
        return self._epoch[1]


class _Mixture:
    def __init__(self, source: list[int], weights: list[float], seed: int) -> None:
        counts = np.bincount(np.asarray(source, dtype=np.int64))
        given = np.asarray(weights, dtype=np.float64)
        if len(given) != len(counts):
            raise ConfigError(
                f"method.data.weights has {len(given)} entries for {len(counts)} inputs: "
                "expected one for each input."
            )
        if not np.isfinite(given).all() or (given < 0).any() or given.sum() == 0:
            raise ConfigError(
                f"method.data.weights={list(weights)}: expected numbers of 0 or more, not all 0."
            )
        empty = np.flatnonzero((counts == 0) & (given > 0))
        if len(empty):
            raise DataError(f"input {empty[0]} has no videos but a positive weight: set it to 0.")
        self._bounds = np.cumsum(given / given.sum())
        self._last = int(np.flatnonzero(given)[-1])
        self._order = np.argsort(source, kind="stable")
        self._counts = counts
        self._first = np.cumsum(counts) - counts
        self._seed = seed

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Draws the videos at consecutive positions; Philox makes four words for each counter."""
        words = np.random.Philox(key=self._seed, counter=int(positions[0]))
        uniform = (words.random_raw(4 * len(positions)).reshape(-1, 4) >> np.uint64(11)) * 2.0**-53
        drawn = np.minimum(np.searchsorted(self._bounds, uniform[:, 0], side="right"), self._last)
        within = (uniform[:, 1] * self._counts[drawn]).astype(np.int64)
        return self._order[self._first[drawn] + within]
