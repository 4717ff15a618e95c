"""The code that a study runs, as it was when it was launched."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path

import hydra_plugins
from salt_plugin.conf_folder import conf_folder, slurm_folder


def copy_code(target: Path) -> None:
    """Copies the package, its configs and the plugin of Hydra, laid out as in the wheel."""
    package = Path(str(resources.files("salt_plugin")))
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    unfinished = target.with_name(target.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    copy = unfinished / "salt_plugin"
    shutil.copytree(package, copy, ignore=ignored)
    # In a checkout they lie beside the package.
    for folder in (conf_folder(), slurm_folder()):
        shutil.copytree(folder, copy / folder.name, ignore=ignored, dirs_exist_ok=True)
    plugin = next(
        file
        for path in hydra_plugins.__path__
        if (file := Path(path) / "salt_search_path.py").is_file()
    )
    (unfinished / "hydra_plugins").mkdir()
    shutil.copy(plugin, unfinished / "hydra_plugins")
    unfinished.rename(target)


def commit() -> str | None:
    """Returns the commit of the package, `+` for changes; None where it is not in a checkout."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
