"""One video file, opened and read with decord."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_plugin.errors import DataError
from salt_plugin.video.heartbeat import beat
from salt_plugin.video.reader import VideoReadError, require_regular_file

_STDERR_LOCK = threading.Lock()
_LOG_PREFIX = re.compile(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ")


class DecordReader:
    """A video file open in this process; open it where it is read, never before a fork.

    decord is exact in whole files of the kinds that `decord_danger` lets pass. In others
    it returns frames that were not asked for, and in damaged files frames that the decoder made up,
    without an error. `open_video` refuses or avoids what can be told from a file's packets.

    Args:
        path: The file.
        times: Time stamps of its frames in seconds, float64 [n], increasing.

    Attributes:
        times: These.

    Raises:
        VideoReadError: If the file is missing, empty, or holds no video that decord can decode.
        DataError: If decord is not installed.
    """

    def __init__(self, path: str, times: np.ndarray) -> None:
        self._path = path
        self._decord = _import_decord()
        require_regular_file(path)
        try:
            with _silent_stderr():
                self._reader = self._decord.VideoReader(path, num_threads=1)
        except self._failures as error:
            raise VideoReadError(path, _reason(error)) from error
        self.times = times

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its frames, in pixels; the first one is decoded to learn it."""
        height, width = self.frames(np.zeros(1, dtype=np.int64)).shape[-2:]
        return height, width

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
        frames = np.empty(0)
        try:
            for place, number in enumerate(unique):
                frame = self._reader.get_batch([number]).asnumpy()[0]
                beat()
                if place == 0:
                    frames = np.empty((len(unique), *frame.shape), np.uint8)
                frames[place] = frame
        except self._failures as error:
            raise VideoReadError(self._path, _reason(error)) from error
        if not np.array_equal(unique, indices):
            frames = frames[inverse]
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        return (self._decord.DECORDError, RuntimeError, AssertionError, IndexError, OSError)


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise DataError(
            "method.data.reader=decord or auto needs decord, which is not installed here: pip "
            "install decord (on other machines than x86_64, pip install decord2), or set "
            "method.data.reader=pyav."
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what decord's C++ code prints about a file that it also reports as an exception."""
    # A file that hangs in another thread keeps the lock, and stderr is hidden then.
    if not _STDERR_LOCK.acquire(timeout=1):
        yield
        return
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(null)
        os.close(saved)
        _STDERR_LOCK.release()


def _reason(error: Exception) -> str:
    text = _LOG_PREFIX.sub("", str(error).partition("Stack trace")[0])
    if "Error reading" in text:
        return "not a video file that decord can open"
    if "cannot find video stream" in text:
        return "no video stream that decord can decode"
    if "Invalid frame count" in text:
        return "the video has no frames"
    return "decoding failed: " + " ".join(text.split())[:160]
