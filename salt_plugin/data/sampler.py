"""The order in which training meets the videos: a function of the seed and the position alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from salt_plugin.errors import ConfigError, DataError


class SampleKey(NamedTuple):
    """One place of the training stream.

    Attributes:
        step: Training step.
        slot: Place in the step's global batch, over all ranks.
        index: Number of the video.
    """

    step: int
    slot: int
    index: int  # type: ignore[assignment]


class StepBatchSampler(Sampler[list[SampleKey]]):
    """Yields a batch of keys for each training step.

    The video at a place depends on the seed and on the global position
    `step * batch_size * world_size + slot` only: neither on the number of workers, nor on where a
    run was stopped and resumed, nor on how a global batch is split over ranks.

    Without weights each epoch is a permutation of all videos; batches run across epochs, so small
    sets wrap. With weights a source is drawn with probability proportional to its weight, then a
    video uniformly in it, with replacement.

    Args:
        num_samples: Number of videos.
        batch_size: Keys of a batch, for this rank.
        total_steps: Steps of the whole run; also the length of this sampler.
        seed: Seed of the stream.
        start_step: First step to yield, when a run resumes.
        rank: This process among all.
        world_size: Number of processes.
        shuffle: Whether epochs are permuted; otherwise videos come in their order.
        source: The source of each video, numbered from 0; needed with weights.
        weights: A weight for each source, proportional to how often it is drawn.

    Raises:
        DataError: If there are no videos, or a source with a positive weight has none.
        ConfigError: If the numbers or the weights cannot work.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        total_steps: int,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        source: list[int] | None = None,
        weights: list[float] | None = None,
    ) -> None:
        if num_samples < 1:
            raise DataError("there are no videos to sample from: expected at least 1.")
        if batch_size < 1:
            raise ConfigError(f"loader.batch_size={batch_size}: expected at least 1.")
        if seed < 0:
            raise ConfigError(f"seed={seed}: expected 0 or more.")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} of world_size={world_size}: expected 0 <= rank < size.")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.total_steps = total_steps
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self._mixture = None if weights is None else _Mixture(source or [], weights, seed)
        self._epoch: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Steps of the whole run."""
        return self.total_steps

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yields the batches of this rank from start_step on."""
        slots = self.rank * self.batch_size + np.arange(self.batch_size)
        for step in range(self.start_step, self.total_steps):
            positions = step * self.batch_size * self.world_size + slots
            draw = self._ordered if self._mixture is None else self._mixture
            indices = draw(positions)
            pairs = zip(slots.tolist(), indices.tolist(), strict=True)
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
            sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
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
