"""Addresses that fsspec opens, read with retries, limits of time and bounded read-ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

from salt_plugin.errors import DataError
from salt_plugin.video.reader import FileState, OutOfReachError, VideoReadError, require_content
from salt_plugin.video.time_limit import beat, within

Result = TypeVar("Result")

# Seconds for one attempt, and pauses between attempts.
LIMIT = 20.0
PAUSES = (0.5, 2.0, 8.0)
# Bytes that are read at once, and how many such blocks a process keeps.
BLOCK = 2**21
KEPT = 32
# What tells versions of a file apart, as file systems name it.
_VERSIONS = (
    "ETag",
    "etag",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
)
# Of answers that the same question may not get again: too long, too many.
_RETRIED = (408, 425, 429)


class RemoteFile:
    """A file at an address.

    Args:
        address: As fsspec spells it.

    Attributes:
        state: Its size and version.

    Raises:
        VideoReadError: It is missing, empty, a folder, or of unknown size.
        DataError: The package that opens such addresses is not installed.
    """

    def __init__(self, address: str) -> None:
        self.state = require_content(address, remote_state(address))
        self._address = address

    def fetch(self, start: int, stop: int) -> bytes:
        """Returns bytes [start, stop), which are in the file.

        Raises:
            OutOfReachError: They cannot be read, after several attempts.
        """
        first = start // BLOCK * BLOCK
        blocks = (
            _block(os.getpid(), self._address, self.state, at, min(at + BLOCK, self.state.size))
            for at in range(first, stop, BLOCK)
        )
        return b"".join(blocks)[start - first : stop - first]


def remote_state(address: str) -> FileState:
    """Returns size and version of a file, which are asked for once in a process.

    Raises:
        VideoReadError: It is missing, a folder, or of unknown size.
        DataError: The package that opens such addresses is not installed.
    """
    return _state(os.getpid(), address)


def remote_names(address: str) -> list[str]:
    """Returns the names of what a folder holds.

    Raises:
        VideoReadError: It cannot be listed.
        DataError: The package that opens such addresses is not installed.
    """

    def listed() -> list[str]:
        system, path = _system(os.getpid(), address)
        return [str(one).rstrip("/").rpartition("/")[2] for one in system.ls(path, detail=False)]

    return _tried(address, listed)


def remote_files(address: str) -> tuple[str, list[str]]:
    """Returns the address of a folder in full, and those of all files below it, sorted.

    Raises:
        VideoReadError: It cannot be listed.
        DataError: The package that opens such addresses is not installed.
    """

    def found() -> tuple[str, list[str]]:
        system, path = _system(os.getpid(), address)
        files = [str(system.unstrip_protocol(one)) for one in system.find(path)]
        return str(system.unstrip_protocol(path)), sorted(files)

    return _tried(address, found)


@lru_cache(maxsize=2**12)
def _state(process: int, address: str) -> FileState:
    def asked() -> dict[str, Any]:
        system, path = _system(process, address)
        return dict(system.info(path))

    info = _tried(address, asked)
    if info.get("type") == "directory":
        raise VideoReadError(address, "not a file but a folder")
    if info.get("size") is None:
        raise VideoReadError(address, "its size is not known")
    versions = [info.get(name) for name in _VERSIONS]
    return FileState(int(info["size"]), str(versions) if any(versions) else "")


@lru_cache(maxsize=2**8)
def _system(process: int, address: str) -> tuple[Any, str]:
    """Returns the file system of an address and the path in it; a fork takes none with it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(address)
    return system, str(path)


@lru_cache(maxsize=KEPT)
def _block(process: int, address: str, state: FileState, start: int, stop: int) -> bytes:
    return _tried(address, partial(_part, address, start, stop))


def _part(address: str, start: int, stop: int) -> bytes:
    system, path = _system(os.getpid(), address)
    data: bytes = system.cat_file(path, start=start, end=stop)
    if len(data) != stop - start:
        what = "whole files alone, no parts" if len(data) > stop - start else f"{len(data)} bytes"
        raise OSError(f"asked for {stop - start} bytes at {start}, the server sends {what}")
    return data


def _tried(address: str, ask: Callable[[], Result]) -> Result:
    """Asks several times, with growing pauses; no attempt is waited for without a limit."""
    for pause in (*PAUSES, None):
        beat()  # each attempt has a limit of its own
        try:
            return within(LIMIT, address, ask)
        except ImportError as error:
            raise DataError(
                f"{address} cannot be opened here: {error}. Install the package that fsspec needs "
                "for such addresses (s3://: s3fs, gs://: gcsfs, http://: aiohttp)."
            ) from None
        except Exception as error:
            if pause is None or _is_final(error):
                tries = "" if pause is not None else f", after {len(PAUSES) + 1} attempts"
                said = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
                raise OutOfReachError(address, f"{said}{tries}") from None
            time.sleep(pause)
    raise AssertionError


def _is_final(error: Exception) -> bool:
    """Tells whether the same question would have the same answer."""
    # HTTP gives every failure as a missing file.
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
    status = getattr(cause or error, "status", None)
    if status is not None:
        return 400 <= status < 500 and status not in _RETRIED
    kinds = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
    return isinstance(cause or error, kinds)
