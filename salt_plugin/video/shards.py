"""Tar files of clips or frames, and where each member lies in them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from salt_plugin.files import is_address, user_cache
from salt_plugin.video.places import LocalFile, Part, Source
from salt_plugin.video.reader import FileState, VideoReadError, regular_state
from salt_plugin.video.remote import RemoteFile, remote_state
from salt_plugin.video.time_limit import beat

# Beside a shard: `shard.tar.index.npy`.
INDEX_SUFFIX = ".index.npy"
_VERSION = 1
_MAX_INDEX = 2**30


class Shard:
    """A tar file whose members are found by an index.

    The index lies beside the file, or is made by reading its headers once. One that is made, or
    lies at an address, is kept in the user's cache. It is int64 [n + 1, 3]: version, bytes of the
    shard and n; then for each member a hash of its name, by which rows are sorted, its place, and
    its size.

    Args:
        path: A path, or an address.
        source: The file.

    Raises:
        VideoReadError: It is no tar file, or its index belongs to another one.
    """

    def __init__(self, path: str, source: Source) -> None:
        self._path, self.source = path, source
        self._index = self._read_index()

    def places(self, names: Sequence[str]) -> np.ndarray:
        """Returns place and size of members, int64 [n, 2], -1 for those that it does not hold."""
        if len(self._index) == 1:
            return np.full((len(names), 2), -1)
        hashes = _hashes(names)
        rows = np.searchsorted(self._index[1:, 0], hashes)
        rows = np.minimum(rows, len(self._index) - 2) + 1
        found = self._index[rows]
        return np.where((found[:, 0] == hashes)[:, None], found[:, 1:], -1)

    def holds(self, name: str) -> bool:
        """Tells whether there is a member."""
        return bool(self.places([name])[0, 0] >= 0)

    def place(self, name: str) -> tuple[int, int]:
        """Returns place and size of a member.

        Raises:
            VideoReadError: It holds no such member, or not all of it.
        """
        return next(self.located([name]))

    def located(self, names: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yields place and size of members, which are looked up all at once; see `place`."""
        for name, found in zip(names, self.places(names).tolist(), strict=True):
            yield self._checked(name, *found)

    def _checked(self, name: str, start: int, size: int) -> tuple[int, int]:
        if start < 0:
            held = len(self._index) - 1
            raise VideoReadError(
                f"tar://{name}::{self._path}",
                f"no such member in the shard: none of its {held} has this name",
            )
        if start + size > self.source.state.size:
            raise VideoReadError(
                f"tar://{name}::{self._path}",
                f"the shard was cut: this member ends at byte {start + size} of "
                f"{self.source.state.size}",
            )
        return start, size

    def _read_index(self) -> np.ndarray:
        beside, address = self._path + INDEX_SUFFIX, is_address(self._path)
        try:
            if not address:
                index = np.load(beside, mmap_mode="r", allow_pickle=False)
            else:
                file = RemoteFile(beside)
                if file.state.size > _MAX_INDEX:
                    raise ValueError("it is too large")
                index = self._kept(file.state, partial(_fetched, file))
        except (FileNotFoundError, VideoReadError):
            return self._kept(self.source.state, self._scanned)
        except (OSError, ValueError) as error:
            raise VideoReadError(
                self._path, f"the index of the shard cannot be read: {beside}: {error}"
            ) from None
        if index.ndim != 2 or index.shape[1] != 3 or index.dtype != np.int64 or not len(index):
            raise VideoReadError(self._path, f"the index of the shard is of another kind: {beside}")
        if index[0].tolist() != [_VERSION, self.source.state.size, len(index) - 1]:
            raise VideoReadError(
                self._path,
                f"the shard was cut or changed: it has {self.source.state.size} bytes, its index "
                f"is of one with {index[0, 1]}; copy it again, or remove {beside}",
            )
        return index

    def _scanned(self) -> np.ndarray:
        members = list(read_members(self._path, self.source))
        return make_index(self.source.state.size, members)

    def _kept(self, state: FileState, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Returns what is made of a file in this state, from the user's cache if it is there."""
        key = f"{_VERSION}\0{self._path}\0{state.size}\0{state.changed}".encode(errors="replace")
        kept: Path | None = None
        with suppress(Exception):  # the cache may be absent or damaged
            if state.changed:
                kept = user_cache() / "shards" / f"{hashlib.sha256(key).hexdigest()}.npy"
                return np.load(kept, mmap_mode="r", allow_pickle=False)
        index = make()
        if kept is not None:
            with suppress(OSError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                unfinished = kept.with_name(f"{os.getpid()}.{kept.name}")
                np.save(unfinished, index)
                os.replace(unfinished, kept)
        return index


def _fetched(index: RemoteFile) -> np.ndarray:
    content = io.BytesIO(index.fetch(0, index.state.size))
    return np.asarray(np.load(content, allow_pickle=False))


def shard_at(path: str) -> Shard:
    """Returns a shard, which stays open in this process.

    Raises:
        VideoReadError: It cannot be opened.
    """
    state = remote_state(path) if is_address(path) else regular_state(path)
    return _shard(os.getpid(), path, state)


@lru_cache(maxsize=64)
def _shard(process: int, path: str, state: FileState) -> Shard:
    return Shard(path, RemoteFile(path) if is_address(path) else LocalFile(path))


def read_members(path: str, source: Source) -> Iterator[tuple[str, int, int]]:
    """Yields name, place and size of the files in a tar, as far as it is whole.

    Raises:
        VideoReadError: It is no tar file.
    """
    file = io.BufferedReader(Part(source, 0, source.state.size, path))
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while True:
                try:
                    member = tar.next()
                except tarfile.TarError:  # cut
                    return
                if member is None:
                    return
                beat()
                tar.members = []  # type: ignore[attr-defined] # it would keep them all
                if member.isreg():
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise VideoReadError(path, f"not a plain tar file: {error}") from None


def make_index(size: int, members: Sequence[tuple[str, int, int]]) -> np.ndarray:
    """Returns the index of a shard (see `Shard`).

    Args:
        size: Bytes of the shard.
        members: Name, place and size of each.
    """
    rows = np.array([one[1:] for one in members], np.int64).reshape(-1, 2)
    hashes = _hashes([one[0] for one in members])
    order = np.argsort(hashes, kind="stable")
    body = np.concatenate([hashes[:, None], rows], axis=1)[order]
    return np.concatenate([np.array([[_VERSION, size, len(members)]], np.int64), body])


def _hashes(names: Sequence[str]) -> np.ndarray:
    digests = [
        hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
        for name in names
    ]
    return np.frombuffer(b"".join(digests), np.int64)
