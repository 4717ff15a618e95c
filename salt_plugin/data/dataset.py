"""Clips for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from salt_plugin.batch import Normalization, Views
from salt_plugin.data.clips import ClipSampler
from salt_plugin.data.loader import note_file
from salt_plugin.data.sampler import SampleKey
from salt_plugin.data.sources import VideoList
from salt_plugin.errors import DataError
from salt_plugin.video.opening import DEFAULT_READER, open_video
from salt_plugin.video.reader import MemoryReader, OutOfReachError, Reader, VideoReadError
from salt_plugin.video.time_limit import within

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


@dataclass(eq=False, repr=False)
class VideoDataset(Dataset[ClipItem]):
    """Training clips, one decode each, addressed by `SampleKey`.

    Start frame and augmentation depend on (seed, step, slot) only, never on the worker. A bad file
    is replaced by another video, drawn from the same numbers and the attempt. One that cannot be
    opened, hangs, or is out of reach is not opened again in this process; one that is damaged in
    places is, so that its good places are read whatever this worker has met before.

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
    """

    videos: VideoList
    clip_sampler: ClipSampler
    transform: Transform
    seed: int
    max_attempts: int = 10
    cache: bool = False
    reader: str = DEFAULT_READER
    timeout: float | None = None
    _kept: dict[str, Reader] = field(default_factory=dict, init=False)
    _bad: dict[str, str] = field(default_factory=dict, init=False)

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
            note_file(path)
            try:
                frames = self._read(path, rng)
            except VideoReadError as error:
                skipped.append((path, error.reason))
                continue
            clip = self._transformed(frames, int(rng.integers(2**63)))
            note_file(None)
            label = self.videos.labels[index]
            normalization = getattr(self.transform, "normalization", Normalization())
            return ClipItem(clip, label, key, path, skipped, normalization)
        listed = "; ".join(f"{path}: {reason}" for path, reason in dict(skipped).items())
        raise DataError(
            f"{self.max_attempts} videos in a row cannot be read: expected mostly readable videos; "
            f"remove the bad ones from the input. They were {listed}"
        )

    def _read(self, path: str, rng: np.random.Generator) -> Tensor:
        if path in self._bad:
            raise VideoReadError(path, self._bad[path])

        def clip() -> Tensor:
            return _read_clip(self._open(path), self.clip_sampler, rng)

        try:
            return within(self.timeout, path, clip)
        except OutOfReachError as error:
            self._bad[path] = error.reason
            raise

    def _open(self, path: str) -> Reader:
        if path in self._kept:
            return self._kept[path]
        try:
            reader = open_video(path, self.reader)
            if self.cache:
                reader = self._kept[path] = MemoryReader(reader, path)
        except VideoReadError as error:
            self._bad[path] = error.reason
            raise
        return reader

    def _transformed(self, frames: Tensor, seed: int) -> Tensor | Views:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(frames)


@dataclass(eq=False, repr=False)
class EvalDataset(Dataset[tuple[Tensor, int]]):
    """The centred clip of each video, for evaluation; a bad file is an error, not replaced.

    Args:
        videos: The videos.
        clip_sampler: Picks the frames.
        transform: Maps uint8 [T, C, H, W] to float32 [C, T, H, W].
    """

    videos: VideoList
    clip_sampler: ClipSampler
    transform: Callable[[Tensor], Tensor]

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
