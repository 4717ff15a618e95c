"""Where the defaults lie."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """Returns the folder of our configs, inside the wheel or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
