"""Folders that a command reads or writes."""

from __future__ import annotations

import argparse
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


def study_folder_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """Returns the parser of a command on a study, whose folder is `study`, an absolute path."""

    def absolute(text: str) -> Path:
        return Path(text).expanduser().absolute()

    parser = argparse.ArgumentParser(prog=f"salt {verb}", description=description)
    parser.add_argument("study", type=absolute, metavar="STUDY", help="the folder of salt launch")
    return parser
