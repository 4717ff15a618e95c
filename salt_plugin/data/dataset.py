"""Clips for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from salt_plugin.batch import Normalization, Views
from salt_plugin.data.clips import ClipSampler
from salt_plugin.data.loader import at_work_on
from salt_plugin.data.quarantine import Quarantine
from salt_plugin.data.sampler import SampleKey
from salt_plugin.data.sources import VideoList
from salt_plugin.errors import DataError
from salt_plugin.video.opening import DEFAULT_READER, ReadTimeoutError, open_video, within
from salt_plugin.video.reader import MemoryReader, Reader, VideoReadError

Transform = Callable[[Tensor], Tensor | Views]


class ClipItem(NamedTuple):
    """One training clip.

    Attributes:
        clip: The clip, [C, T, H, W], as the transform left it, with local views if it makes any.
        label: Its label, -1 for none.
        key: The place of the stream that it fills.
        path: The file it came from.
        skipped: Path and reason of each bad file met on the way.
        normalization: What a clip of uint8 is normalised by, once it is on the device.
    """

    clip: Tensor | Views
    label: int
    key: SampleKey
    path: str
    skipped: list[tuple[str, str]]
    normalization: Normalization = Normalization()


class VideoDataset(Dataset[ClipItem]):
    """Training clips, one decode each, addressed by `SampleKey`.

    Start frame and augmentation depend on (seed, step, slot) only, never on the worker. A bad file
    is replaced by another video, drawn from the same numbers and the attempt. One that cannot be
    opened, or hangs, is not opened again in this process; one that is damaged in places is, so that
    its good places are read whatever this worker has met before.

    Args:
        videos: The videos.
        clip_sampler: Picks the frames.
        transform: Maps uint8 [T, C, H, W] to [C, T, H, W], of uint8, which takes a quarter of the
            memory on its way, or of normalised floats; its randomness has to come from torch's
            default CPU generator. Its `normalization` goes with its clips; where it has none,
            ImageNet's.
        seed: Seed of all randomness.
        max_attempts: Videos to try for one clip.
        cache: Keeps every decoded video whole, as uint8, in each process's memory; for small sets.
            A file with any broken frame is then bad as a whole.
        reader: Reads the files: `pyav`, `auto` or `decord` (see `open_video`).
        timeout: Seconds without a packet or a frame after which a file is given up, None for never.
            Files that hang are left out of the promise above: time is not a function of the seed.
        quarantine: Files that any worker, or the run before it was stopped, found to hang.
    """

    def __init__(
        self,
        videos: VideoList,
        clip_sampler: ClipSampler,
        transform: Transform,
        seed: int,
        max_attempts: int = 10,
        cache: bool = False,
        reader: str = DEFAULT_READER,
        timeout: float | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.videos = videos
        self.clip_sampler = clip_sampler
        self.transform = transform
        self.normalization = getattr(transform, "normalization", Normalization())
        self.seed = seed
        self.max_attempts = max_attempts
        self.reader = reader
        self.timeout = timeout
        self.quarantine = quarantine or Quarantine(videos.paths, clips=1)
        self._cache: dict[str, MemoryReader] | None = {} if cache else None
        self._bad: dict[str, str] = {}

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.videos.paths)

    def __getitem__(self, key: SampleKey) -> ClipItem:
        """Reads the clip at a place of the stream.

        Raises:
            DataError: If max_attempts videos in a row cannot be read.
        """
        skipped: list[tuple[str, str]] = []
        for attempt in range(self.max_attempts):
            rng = np.random.default_rng([self.seed, key.step, key.slot, attempt])
            index = key.index if attempt == 0 else int(rng.integers(len(self)))
            path = self.videos.paths[index]
            at_work_on(path)
            try:
                self.quarantine.require(index, key.step)
                frames = self._read(path, rng)
            except VideoReadError as error:
                skipped.append((path, error.reason))
                continue
            clip = self._transformed(frames, int(rng.integers(2**63)))
            at_work_on(None)
            label = self.videos.labels[index]
            return ClipItem(clip, label, key, path, skipped, self.normalization)
        listed = "; ".join(f"{path}: {reason}" for path, reason in dict(skipped).items())
        raise DataError(
            f"{self.max_attempts} videos in a row cannot be read: expected mostly readable videos; "
            f"remove the bad ones from the input. They were {listed}"
        )

    def _read(self, path: str, rng: np.random.Generator) -> Tensor:
        if path in self._bad:
            raise VideoReadError(path, self._bad[path])
        try:
            return within(self.timeout, path, lambda: self._clip(path, rng))
        except ReadTimeoutError as error:
            self._bad[path] = error.reason
            raise

    def _clip(self, path: str, rng: np.random.Generator) -> Tensor:
        try:
            reader = self._open(path)
        except VideoReadError as error:
            self._bad[path] = error.reason
            raise
        return _read_clip(reader, self.clip_sampler, rng)

    def _open(self, path: str) -> Reader:
        if self._cache is None:
            return open_video(path, self.reader)
        if path not in self._cache:
            self._cache[path] = MemoryReader(open_video(path, self.reader), path)
        return self._cache[path]

    def _transformed(self, frames: Tensor, seed: int) -> Tensor | Views:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(frames)


class EvalDataset(Dataset[tuple[Tensor, int]]):
    """The centred clip of each video, for evaluation; a bad file is an error, not replaced.

    Args:
        videos: The videos.
        clip_sampler: Picks the frames.
        transform: Maps uint8 [T, C, H, W] to float32 [C, T, H, W].
    """

    def __init__(
        self, videos: VideoList, clip_sampler: ClipSampler, transform: Callable[[Tensor], Tensor]
    ) -> None:
        self.videos = videos
        self.clip_sampler = clip_sampler
        self.transform = transform

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.videos.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Reads a video's clip.

        Returns:
            The clip (float32 [C, T, H, W]) and its label (-1 for none).

        Raises:
            VideoReadError: If the video cannot be read.
        """
        path = self.videos.paths[index]
        frames = _read_clip(open_video(path), self.clip_sampler, None)
        return self.transform(frames), self.videos.labels[index]


def _read_clip(
    reader: Reader, clip_sampler: ClipSampler, rng: np.random.Generator | None
) -> Tensor:
    return reader.frames(clip_sampler.indices(reader.times, rng))
