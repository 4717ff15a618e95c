"""Joining Lightly: its `lightly-ssl-train` command gains our methods.

Lightly has no registry of methods. Its Hydra application is recognised by its config module;
then a config of the same name that knows the `method` group is put before it, and the function
that the command calls is replaced by one that sends our methods to us and all else to Lightly.
Nothing here imports torch or Lightly: Hydra loads it in every application.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from omegaconf import DictConfig, OmegaConf

from salt_plugin.conf_folder import conf_folder
from salt_plugin.job import train_job

LIGHTLY_CONFIG = "pkg://lightly.cli/config"


def config_path() -> str:
    """Returns the folder of our configs as an entry of Hydra's search path."""
    return f"file://{conf_folder()}"


def demo_or(demo: Any, otherwise: Any, *, _root_: DictConfig) -> Any:
    """The resolver `salt.demo_or`: one default for the embedded demo, one for videos."""
    return otherwise if OmegaConf.select(_root_, "input_dir") else demo


def register_resolvers() -> None:
    """Registers what our configs interpolate with."""
    OmegaConf.register_new_resolver("salt.demo_or", demo_or, replace=True)


def is_lightly(search_path: ConfigSearchPath) -> bool:
    """Tells whether the application that starts is Lightly's training command, or ours."""
    mains = [entry.path for entry in search_path.get_path() if entry.provider == "main"]
    return any(_dotted(path) == _dotted(LIGHTLY_CONFIG) for path in mains)


def join_lightly(search_path: ConfigSearchPath) -> None:
    """Lets `method=` select one of ours in Lightly's command."""
    shadow = Path(__file__).parent / "host_config"
    search_path.prepend("salt_plugin", f"file://{shadow}")
    search_path.append("salt_plugin", "pkg://lightly.cli")
    train_cli = sys.modules.get("lightly.cli.train_cli")
    if train_cli is not None and not hasattr(train_cli._train_cli, "__wrapped__"):
        train_cli._train_cli = _dispatch(train_cli._train_cli)  # type: ignore[attr-defined]


def _dispatch(original: Any) -> Any:
    @functools.wraps(original)
    def _train_cli(cfg: Any, is_cli_call: bool = True) -> Any:
        # Lightly itself has no `method`; what a name stands for is checked by our config.
        if OmegaConf.select(OmegaConf.create(cfg), "method.name") is None:
            return original(cfg, is_cli_call)
        return train_job(cfg)

    return _train_cli


def _dotted(path: str) -> str:
    return path.replace("/", ".")
