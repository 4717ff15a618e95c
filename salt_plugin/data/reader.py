"""One video file, opened and read with decord."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from salt_plugin.errors import DataError

_STDERR_LOCK = threading.Lock()
_LOG_PREFIX = re.compile(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ")


class VideoReadError(DataError):
    """A video file that cannot be read.

    Attributes:
        path: The file.
        reason: What is wrong with it, in one short line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read video {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoReadError], tuple[str, str]]:
        """Pickles by both arguments, so that the error crosses from a loader worker."""
        return type(self), (self.path, self.reason)


class Reader(Protocol):
    """An open video."""

    fps: float

    def __len__(self) -> int: ...

    def frames(self, indices: np.ndarray) -> Tensor:
        """Returns frames as uint8 [T, C, H, W]."""
        ...


class DecordReader:
    """A video file open in this process; open it where it is read, never before a fork.

    decord decodes closed-GOP files exactly. In open-GOP H.264 and HEVC and in MPEG-4 with B-frames
    it may return frames a few places off after a seek, without an error.

    Args:
        path: The file.

    Attributes:
        fps: Average frame rate in frames per second; 0 or NaN when the file does not tell.

    Raises:
        VideoReadError: If the file is missing, empty, or holds no video that decord can decode.
        DataError: If decord is not installed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._decord = _import_decord()
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise VideoReadError(path, error.strerror or "cannot be opened") from error
        if size == 0:
            raise VideoReadError(path, "the file is empty (0 bytes)")
        try:
            with _silent_stderr():
                self._reader = self._decord.VideoReader(path, num_threads=1)
            self.fps = float(self._reader.get_avg_fps())
        except self._failures as error:
            raise VideoReadError(path, _reason(error)) from error

    def __len__(self) -> int:
        """Number of frames, as the file states it."""
        return len(self._reader)

    def frames(self, indices: np.ndarray) -> Tensor:
        """Decodes frames.

        Args:
            indices: Frame numbers, int [T]; repeated ones are decoded once.

        Returns:
            The frames, uint8 [T, C, H, W], RGB.

        Raises:
            VideoReadError: If a frame cannot be decoded.
        """
        unique, inverse = np.unique(indices, return_inverse=True)
        try:
            decoded = self._reader.get_batch(unique).asnumpy()
        except self._failures as error:
            raise VideoReadError(self._path, _reason(error)) from error
        if len(unique) < len(indices):
            decoded = decoded[inverse]
        return torch.from_numpy(decoded).permute(0, 3, 1, 2)

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        return (self._decord.DECORDError, RuntimeError, AssertionError, IndexError, OSError)


class MemoryReader:
    """A video decoded once and kept whole as uint8.

    Args:
        path: The file.

    Raises:
        VideoReadError: As `DecordReader`, and if any frame of the file cannot be decoded.
    """

    def __init__(self, path: str) -> None:
        reader = DecordReader(path)
        self.fps = reader.fps
        self._frames = reader.frames(np.arange(len(reader)))

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def frames(self, indices: np.ndarray) -> Tensor:
        """Copies frames (int [T] -> uint8 [T, C, H, W])."""
        return self._frames[torch.from_numpy(indices)]


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise DataError(
            "reading videos needs decord, which is not installed here: pip install decord "
            "(on other machines than x86_64, pip install decord2)."
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what decord's C++ code prints about a file that it also reports as an exception."""
    with _STDERR_LOCK:
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(null)
            os.close(saved)


def _reason(error: Exception) -> str:
    text = _LOG_PREFIX.sub("", str(error).partition("Stack trace")[0])
    if "Error reading" in text:
        return "not a video file that decord can open"
    if "cannot find video stream" in text:
        return "no video stream that decord can decode"
    if "Invalid frame count" in text:
        return "the video has no frames"
    return "decoding failed: " + " ".join(text.split())[:160]
