"""Files that are written in one piece, and where what can be made again is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one piece: another name first, so that it is never torn."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, newline="")
    os.replace(unfinished, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file in one piece."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def user_cache() -> Path:
    """Returns `salt_plugin` in the user's cache: under `$XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salt_plugin"
