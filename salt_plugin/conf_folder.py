"""Where the defaults, and the pipelines, lie."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """Returns the folder of our configs, inside the wheel or beside the package in a checkout."""
    return _shipped("conf")


def slurm_folder() -> Path:
    """Returns the folder of our pipelines and cluster profiles, likewise."""
    return _shipped("slurm")


def _shipped(name: str) -> Path:
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
