"""The code that a study runs, as it was when it was launched."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import salt_plugin
from salt_plugin.conf_folder import conf_folder, slurm_folder


def keep_code(folder: Path) -> None:
    """Copies the package, its configs and the plugin of Hydra, where there is no copy yet."""
    if folder.is_dir():
        return
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    for place, file in _installed().items():
        (unfinished / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, unfinished / place)
    unfinished.rename(folder)


def run_kept_code(folder: Path, verb: str, arguments: Sequence[str]) -> None:
    """Gives a command to the copy of a study instead, where the installed package differs.

    Args:
        folder: The copy; nothing happens where it is not there.
        verb: Of `salt`.
        arguments: Of the verb.
    """
    # Without this file, Python would start the installed one again and again.
    if not (folder / "salt_plugin" / "cli.py").is_file():
        return
    kept, installed = _files(folder), _installed()
    if kept.keys() == installed.keys() and all(
        filecmp.cmp(kept[name], installed[name], shallow=False) for name in kept
    ):
        return
    print(
        f"the study goes on with its own copy of the code, {folder}, which differs from the "
        f"installed version, {salt_plugin.__version__}; remove the copy to go on with that",
        file=sys.stderr,
        flush=True,
    )
    command = [sys.executable, "-m", "salt_plugin.cli", verb, *arguments]
    os.execve(sys.executable, command, with_code(folder))


def with_code(folder: Path) -> dict[str, str]:
    """Returns the environment in which Python runs a copy, and not what the user works in."""
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _installed() -> dict[str, Path]:
    """Returns the files of the package by their place in the wheel."""
    found = _files(Path(salt_plugin.__file__).parent, "salt_plugin/")
    # In a checkout they lie beside the package.
    for folder in (conf_folder(), slurm_folder()):
        found |= _files(folder, f"salt_plugin/{folder.name}/")
    plugin = find_spec("hydra_plugins.salt_search_path")
    assert plugin is not None
    return found | {"hydra_plugins/salt_search_path.py": Path(str(plugin.origin))}


def _files(folder: Path, prefix: str = "") -> dict[str, Path]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {prefix + file.relative_to(folder).as_posix(): file for file in files}
