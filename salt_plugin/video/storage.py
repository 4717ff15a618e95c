"""Where the bytes of a name lie, and how they are opened."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, NamedTuple

from salt_plugin.video.reader import VideoReadError, require_regular_file


class FileState(NamedTuple):
    """What tells a file from another one of its name.

    Attributes:
        size: In bytes.
        changed: When it was changed.
    """

    size: int
    changed: Any


def name_of(path: str) -> str:
    """Returns the name of a file by which its format is known."""
    return path


def state_of(path: str) -> FileState:
    """Returns the state of a file, or of a folder of frames.

    Raises:
        VideoReadError: It is missing, empty, or a pipe or a device.
    """
    if Folder.is_one(path):
        state = os.stat(path)
    elif "%" in path and not os.path.exists(path):
        return state_of(os.path.dirname(path))
    else:
        state = require_regular_file(path)
    return FileState(state.st_size, state.st_mtime_ns)


def open_bytes(path: str) -> BinaryIO:
    """Opens a file.

    Raises:
        VideoReadError: It is missing, empty, or no regular file.
    """
    require_regular_file(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise VideoReadError(path, error.strerror or str(error)) from error


class Folder:
    """A folder of images.

    Args:
        path: The folder, or what names files in it.
        numbered: Whether it names files.

    Attributes:
        pattern: What names files, without the folder; None for a folder.
    """

    def __init__(self, path: str, numbered: bool) -> None:
        self._path = path
        self._root = path
        self.pattern: str | None = None
        if numbered:
            self._root, self.pattern = os.path.split(path)

    @staticmethod
    def is_one(path: str) -> bool:
        """Tells whether a path is a folder."""
        return os.path.isdir(path)

    def names(self) -> list[str]:
        """Returns the names of what it holds, without hidden ones.

        Raises:
            VideoReadError: It cannot be listed.
        """
        try:
            return [name for name in os.listdir(self._root) if not name.startswith(".")]
        except OSError as error:
            raise VideoReadError(self._path, f"no folder: {error.strerror}") from error

    def about(self, name: str) -> str:
        """Returns the name of a file that tells of the images."""
        return name

    def holds(self, name: str) -> bool:
        """Tells whether there is a file."""
        return os.path.exists(os.path.join(self._root, name))

    def open(self, name: str) -> BinaryIO:
        """Opens a file; see `open_bytes`."""
        return open_bytes(os.path.join(self._root, name))
