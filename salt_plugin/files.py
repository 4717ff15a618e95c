"""Files that are written in one piece, folders that are held, and the user's cache."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from salt_plugin.errors import CacheError

MAX_JSON = 2**26
LOCK = ".lock"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MEND = "set XDG_CACHE_HOME to a folder that can be written to"


def is_address(path: str) -> bool:
    """Tells whether a name is one of fsspec's, such as `s3://...` or `tar://member::file.tar`."""
    return bool(_ADDRESS.match(path))


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one piece: another name first, so that it is never torn.

    It is UTF-8; bytes of file names that are not come out as they are.
    """
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    sync(unfinished)
    os.replace(unfinished, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file in one piece."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table with a header in one piece; what a row does not have is empty."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, names)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def require_regular(path: Path) -> os.stat_result:
    """Returns the state of a file that opens at once and ends: no pipe, no device.

    Raises:
        OSError: It is missing.
        ValueError: It is something else.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("no regular file but a folder, a pipe or a device")
    return state


def read_json(path: Path) -> Any:
    """Returns what a file holds that somebody else may have written.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no JSON, nested without end, or larger than 64 MiB.
    """
    size = require_regular(path).st_size
    if size > MAX_JSON:
        raise ValueError(f"it has {size} bytes: expected at most {MAX_JSON}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def hold(folder: Path) -> IO[str] | None:
    """Makes a folder and takes its `.lock`, until the file that is returned is closed.

    The file names this process.

    Returns:
        None if another process holds it.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    # A lock lasts as long as any process has its file open: loader workers that outlive a killed
    # process for some seconds would keep the next one out.
    os.register_at_fork(after_in_child=lock.close)
    return lock


def held(folder: Path) -> bool:
    """Whether a process holds a folder."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def sync(path: Path) -> None:
    """Waits until a file is on the disk: renamed before that, a power failure could tear it.

    A folder's names are on the disk once the folder is.
    """
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def user_cache() -> Path:
    """Returns `salt_plugin` in the user's cache: under `$XDG_CACHE_HOME`, or `~/.cache`.

    It is made where it is missing. One that is there may be one that cannot be written to.

    Raises:
        CacheError: There is no home directory, or the folder cannot be made.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(given) if given else Path.home() / ".cache") / "salt_plugin"
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        raise CacheError(f"no folder for the cache ({error}): {_MEND}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_cache(folder, error) from None
    return folder


def unwritable_cache(folder: Path, error: OSError) -> CacheError:
    """Returns the error of a cache that cannot be written to."""
    reason = error.strerror or error
    return CacheError(f"the cache {folder} cannot be written to ({reason}): {_MEND}")
