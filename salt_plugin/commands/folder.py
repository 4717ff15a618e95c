"""Folders that a command writes to."""

from __future__ import annotations

from pathlib import Path

from salt_plugin.errors import ConfigError


def make_folder(folder: Path) -> None:
    """Makes a folder where there is none.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror})") from None
