"""Where the bytes of a name lie: in a file, in a member of a tar file, or at an address."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import BinaryIO, cast

from salt_plugin.files import is_address
from salt_plugin.video.places import LocalFile, Part, Source
from salt_plugin.video.reader import FileState, VideoReadError, regular_state
from salt_plugin.video.remote import RemoteFile, remote_names, remote_state
from salt_plugin.video.shards import shard_at

_TAR = "tar://"
# A number in the name of frames, as `%06d`.
NUMBER = re.compile(r"%(?:0(\d+))?d(?![0-9A-Fa-f])")
# Bytes of a file that is read whole.
_MAX_WHOLE = 2**28
# Numbered frames of a shard that are looked for at once.
_AT_ONCE = 256


def name_of(path: str) -> str:
    """Returns the name of a file by which its format is known: that of a member of an archive."""
    if not is_address(path):
        return path
    name = path.split("::", 1)[0]
    return name.split("?", 1)[0] if name.startswith("http") else name


def absolute(path: str, folder: str) -> str:
    """Returns a path that counts from a folder, or from which an archive's path does.

    Args:
        path: As it is written in a list.
        folder: Absolute, with a slash at its end.
    """
    if not is_address(path):
        return path if path.startswith("/") else folder + path
    member, chained, archive = path.rpartition("::")
    return member + chained + absolute(archive, folder) if chained else path


def is_numbered(path: str) -> bool:
    """Tells whether a name stands for numbered files: a file or member of that name goes before.

    Raises:
        VideoReadError: It is of a shard that cannot be read.
    """
    if not NUMBER.search(name_of(path).rpartition("/")[2]):
        return False
    if (found := _in_shard(path)) is not None:
        return not shard_at(found[1]).holds(found[0])
    return is_address(path) or not os.path.exists(path)


def state_of(path: str) -> FileState:
    """Returns size and version of a file; of frames, those of their folder or of their shard.

    Raises:
        VideoReadError: It is missing, or a pipe or a device.
    """
    numbered = is_numbered(path)
    if (found := _in_shard(path)) is not None:
        member, shard_path = found
        shard = shard_at(shard_path)
        if numbered:
            return shard.source.state
        start, size = shard.place(member)
        return FileState(size, [start, *shard.source.state])
    if is_address(path):
        return FileState(0, "") if numbered else remote_state(path)
    if numbered:
        path = os.path.dirname(path)
    if os.path.isdir(path):
        return FileState(0, os.stat(path).st_mtime_ns)
    return regular_state(path)


def open_bytes(path: str) -> BinaryIO:
    """Opens a file that is no plain local one, for libraries that read files of Python.

    Raises:
        VideoReadError: It is missing, empty, or no regular file.
    """
    source, start, size = _located(path)
    return cast(BinaryIO, Part(source, start, size, name_of(path)))


def read_bytes(path: str) -> bytes:
    """Returns what a small file holds.

    Raises:
        VideoReadError: It cannot be read, or has more than 256 MiB.
    """
    return _whole(path, *_located(path))


class Folder:
    """A folder of frames, or those that have a name in common.

    Args:
        path: The folder, or what names files in it.
        pattern: Whether it names files.

    Attributes:
        pattern: What names files, without the folder; None for a folder.
    """

    def __init__(self, path: str, pattern: bool) -> None:
        self._path = path
        name, self._rest = path, ""
        if is_address(path):
            name, chained, rest = path.partition("::")
            self._rest = chained + rest
        self._root, _, last = name.rpartition("/") if pattern else (name.rstrip("/"), "", "")
        self.pattern = last if pattern else None

    @cached_property
    def names(self) -> list[str]:
        """The names of what it holds, without hidden ones.

        Raises:
            VideoReadError: It cannot be listed.
        """
        if _in_shard(self._path) is not None:
            return self._in_shard()
        try:
            if is_address(self._path):
                names = remote_names(self._root + self._rest)
            else:
                names = os.listdir(self._root or "/")
        except OSError as error:
            raise VideoReadError(self._path, f"no folder: {error.strerror}") from error
        return [name for name in names if not name.startswith(".")]

    def has(self, name: str) -> bool:
        """Tells whether there is a file."""
        path = self._named(name)
        if (found := _in_shard(path)) is not None:
            return shard_at(found[1]).holds(found[0])
        return name in self.names if is_address(path) else os.path.exists(path)

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yields what files hold; see `read_bytes`. In a shard they are looked up all at once."""
        if (found := _in_shard(self._path)) is None:
            yield from (read_bytes(self._named(name)) for name in names)
        else:
            before = found[0].removesuffix(self.pattern or "")
            shard = shard_at(found[1])
            for start, size in shard.located([before + name for name in names]):
                yield _whole(self._path, shard.source, start, size)

    def _named(self, name: str) -> str:
        return f"{self._root}/{name}{self._rest}"

    def _in_shard(self) -> list[str]:
        found = _in_shard(self._path)
        assert found is not None
        member, shard_path = found
        pattern = self.pattern or ""
        number = NUMBER.search(pattern)
        if number is None:
            raise VideoReadError(self._path, "name the frames in a shard, as folder/%06d.jpg")
        before = member.removesuffix(pattern)
        begin, end = pattern[: number.start()], pattern[number.end() :]
        shard, names, first = shard_at(shard_path), list[str](), 0
        while True:
            numbers = range(first, first + _AT_ONCE)
            some = [begin + number[0] % one + end for one in numbers]
            held = shard.places([before + name for name in some])[:, 0] >= 0
            names += [name for name, one in zip(some, held, strict=True) if one]
            if not held.any():
                return names
            first += _AT_ONCE


def _in_shard(path: str) -> tuple[str, str] | None:
    """Returns member and shard of an address `tar://member::shard`, None for other names."""
    if not path.startswith(_TAR):
        return None
    member, chained, shard = path.removeprefix(_TAR).partition("::")
    if not chained:
        raise VideoReadError(path, "expected tar://member::shard.tar")
    return member.lstrip("/"), shard.removeprefix("file://")


def _whole(path: str, source: Source, start: int, size: int) -> bytes:
    if size > _MAX_WHOLE:
        raise VideoReadError(path, f"{size} bytes: expected at most {_MAX_WHOLE} of an image")
    return source.fetch(start, start + size)


def _located(path: str) -> tuple[Source, int, int]:
    """Returns the file that holds a name's bytes, their place and their number."""
    if (found := _in_shard(path)) is not None:
        shard = shard_at(found[1])
        return shard.source, *shard.place(found[0])
    source: Source = RemoteFile(path) if is_address(path) else LocalFile(path)
    return source, 0, source.state.size
