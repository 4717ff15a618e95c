"""Files that are written in one piece, folders that are held, and the user's cache."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one piece: another name first, so that it is never torn."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, newline="")
    os.replace(unfinished, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file in one piece."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def hold(folder: Path) -> IO[str] | None:
    """Makes a folder and takes its `.lock`, until the file that is returned is closed.

    Returns:
        None if another process holds it.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def sync(path: Path) -> None:
    """Waits until a file is on the disk: renamed before that, a power failure could tear it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def user_cache() -> Path:
    """Returns `salt_plugin` in the user's cache: under `$XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salt_plugin"
