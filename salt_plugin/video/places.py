"""Files that are read by places, and parts of them as files."""

from __future__ import annotations

import io
import os
from typing import Protocol

from salt_plugin.video.reader import (
    FileState,
    OutOfReachError,
    VideoReadError,
    regular_state,
    require_content,
)


class Source(Protocol):
    """A file that is read by places.

    Attributes:
        state: Its size, and when it was changed.
    """

    state: FileState

    def fetch(self, start: int, stop: int) -> bytes:
        """Returns bytes [start, stop), which are in the file."""
        ...


class LocalFile:
    """A local file.

    Args:
        path: Its path.

    Attributes:
        state: Its size, and when it was changed.

    Raises:
        VideoReadError: It is missing, empty, or no regular file.
    """

    def __init__(self, path: str) -> None:
        self.state = require_content(path, regular_state(path))
        self._path = path
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - as long as this object
        except OSError as error:
            raise VideoReadError(path, error.strerror or str(error)) from error

    def fetch(self, start: int, stop: int) -> bytes:
        """Returns bytes [start, stop).

        Raises:
            OutOfReachError: Reading fails.
        """
        parts = []
        while start < stop:
            try:
                part = os.pread(self._file.fileno(), stop - start, start)
            except OSError as error:
                raise OutOfReachError(self._path, error.strerror or str(error)) from error
            if not part:
                raise OutOfReachError(self._path, "it was cut while it was read")
            parts.append(part)
            start += len(part)
        return b"".join(parts)


class Part(io.RawIOBase):
    """Some bytes of a file, as a file.

    Args:
        source: The file.
        start: Place of the first byte.
        size: Number of bytes.
        name: By which a format is known.
    """

    def __init__(self, source: Source, start: int, size: int, name: str) -> None:
        self._source, self._start, self._size, self._at = source, start, size, 0
        self.name = name

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads as much as there is room for, and returns how much."""
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._source.fetch(self._start + self._at, self._start + end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(begin + offset, 0)
        return self._at

    def tell(self) -> int:
        """Returns the place."""
        return self._at
