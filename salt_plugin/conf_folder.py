"""Where the defaults, the pipelines and the main configs lie."""

from __future__ import annotations

from pathlib import Path

LIGHTLY_CONFIG = "pkg://lightly.cli/config"
OUR_CONFIG = str(Path(__file__).parent / "train_config")
PLAN_CONFIG = str(Path(__file__).parent / "plan_config")


def conf_folder() -> Path:
    """Returns the folder of our configs, inside the wheel or beside the package in a checkout."""
    return _shipped("conf")


def choices(group: str) -> list[str]:
    """Returns what a group of `conf/` has to choose from, e.g. `demo` and `paper/student_large`."""
    folder = conf_folder() / group
    found = (file.relative_to(folder).with_suffix("") for file in folder.rglob("*.yaml"))
    return sorted(
        one.as_posix() for one in found if not {"shared", "steps", "masks"} & {*one.parts}
    )


def slurm_folder() -> Path:
    """Returns the folder of our pipelines and cluster profiles, likewise."""
    return _shipped("slurm")


def is_lightlys(main: str) -> bool:
    """Tells whether the main config of a Hydra application is that of Lightly's commands.

    Args:
        main: Its place, with its scheme or without.
    """
    return _dotted(main) == _dotted(LIGHTLY_CONFIG)


def is_ours(main: str) -> bool:
    """Tells whether the main config of a Hydra application is that of `salt train`.

    Args:
        main: Its place, with its scheme or without.
    """
    return main.removeprefix("file://") == OUR_CONFIG


def _dotted(module: str) -> str:
    return module.removeprefix("pkg://").replace("/", ".")


def _shipped(name: str) -> Path:
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
