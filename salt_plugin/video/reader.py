"""An open video, the error of one that cannot be read, and limits of memory."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from salt_plugin.errors import DataError

if TYPE_CHECKING:  # torch takes seconds, and the facts of a file need none
    from torch import Tensor

MAX_PIXELS = 2**26
MAX_BYTES = 2**32


class VideoReadError(DataError):
    """A video file that cannot be read.

    Attributes:
        path: The file.
        reason: The reason, in one short line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read video {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoReadError], tuple[str, str]]:
        """Pickles by both arguments, so that the error crosses from a loader worker."""
        return type(self), (self.path, self.reason)


class OutOfReachError(VideoReadError):
    """A file whose bytes cannot be had now, whatever they hold."""


class FileState(NamedTuple):
    """What tells a file from others of its name.

    Attributes:
        size: In bytes.
        changed: When it was changed, or its version; empty where that is not known, so that nothing
            found in the file is kept for later processes.
    """

    size: int
    changed: Any


class Reader(Protocol):
    """An open video.

    Attributes:
        times: Time stamps of its frames in seconds, float64 [n], increasing.
    """

    times: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its frames, in pixels."""
        ...

    def __len__(self) -> int: ...

    def frames(self, indices: np.ndarray) -> Tensor:
        """Returns frames as uint8 [T, C, H, W]."""
        ...


class StreamReader(ABC):
    """A video whose frames are decoded one after the other, each clip its own alone.

    Attributes:
        times: Time stamps of its frames in seconds, float64 [n], increasing.
        size: Height and width of its first frame as coded, in pixels.
    """

    times: np.ndarray
    size: tuple[int, int]
    _path: str

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.times)

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of what `stream` yields."""
        return self.size

    @abstractmethod
    def stream(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yields frames, uint8 [H, W, 3], RGB, by their numbers, int [n], increasing."""

    def frames(self, indices: np.ndarray) -> Tensor:
        """Decodes frames.

        Args:
            indices: Frame numbers, int [T]; repeated ones are decoded once.

        Returns:
            The frames, uint8 [T, C, H, W], RGB.

        Raises:
            VideoReadError: A frame cannot be decoded, or is damaged as far as the decoder tells.
        """
        import torch

        unique, inverse = np.unique(indices, return_inverse=True)
        require_memory(self._path, len(unique), self.size)
        # The only copy of the clip: a second one would take 100 MB at 1080p.
        frames = np.empty((len(unique), *self.shown, 3), np.uint8)
        for place, pixels in enumerate(self.stream(unique)):
            frames[place] = pixels
        if not np.array_equal(unique, indices):
            frames = frames[inverse]
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


class MemoryReader:
    """A video decoded once and kept whole as uint8.

    Args:
        reader: The video.
        path: Its file, for messages.

    Raises:
        VideoReadError: If any frame cannot be decoded, or the video takes more than 4 GiB.
    """

    def __init__(self, reader: Reader, path: str) -> None:
        require_memory(path, len(reader), reader.size)
        self.times = reader.times
        self.size = reader.size
        self._frames = reader.frames(np.arange(len(reader)))

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def frames(self, indices: np.ndarray) -> Tensor:
        """Copies frames (int [T] -> uint8 [T, C, H, W])."""
        import torch

        return self._frames[torch.from_numpy(indices)]


def regular_state(path: str) -> FileState:
    """Returns the state of a file; a pipe would block whoever opens it.

    Raises:
        VideoReadError: If it is missing, or no regular file.
    """
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoReadError(path, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(state.st_mode):
        raise VideoReadError(path, "not a video file but a folder, a pipe or a device")
    return FileState(state.st_size, state.st_mtime_ns)


def require_content(path: str, state: FileState) -> FileState:
    """Returns the state of a file that is opened.

    Raises:
        VideoReadError: If it is empty.
    """
    if state.size == 0:
        raise VideoReadError(path, "the file is empty (0 bytes)")
    return state


def require_memory(path: str, count: int, size: tuple[int, int]) -> None:
    """Checks what frames take, before any is decoded.

    Args:
        path: The file.
        count: Number of frames.
        size: Height and width, in pixels, as the file's header states them.

    Raises:
        VideoReadError: If a frame has no or more than 2^26 pixels, or all take more than 4 GiB.
    """
    height, width = size
    if not 0 < height * width <= MAX_PIXELS:
        raise VideoReadError(
            path, f"frames of {width}x{height} pixels: expected 1 to {MAX_PIXELS} pixels"
        )
    needed = 3 * count * height * width
    if needed > MAX_BYTES:
        raise VideoReadError(
            path,
            f"{count} frames of {width}x{height} take {needed / 2**30:.1f} GiB: expected at most "
            f"{MAX_BYTES / 2**30:.0f}",
        )
