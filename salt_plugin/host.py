"""Joining Lightly: its `lightly-ssl-train` command gains our methods.

Lightly has no registry of methods. Its Hydra application is recognised by its config module;
then a config of the same name that knows the `method` group is put before it, and the function
that the command calls is replaced by one that sends our methods to us and all else to Lightly.
Nothing here imports torch or Lightly: Hydra loads it in every application.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from omegaconf import DictConfig, OmegaConf

from salt_plugin.conf_folder import conf_folder
from salt_plugin.job import train_job

LIGHTLY_CONFIG = "pkg://lightly.cli/config"
LIGHTLY_COMMAND = "lightly.cli.train_cli"


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
    train_cli = sys.modules.get(LIGHTLY_COMMAND)
    if train_cli is not None:
        _dispatch_in(train_cli)


def hydra_job(cfg: DictConfig) -> None:
    """Trains what Hydra has composed, in this process or in one that a launcher has started."""
    register_resolvers()
    train_job(cfg)


class _Dispatch:
    """The function that Lightly's command calls: ours where the config has a method.

    A launcher of Hydra sends it to processes of its own, which join Lightly when they read it.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self._original = original

    def __call__(self, cfg: Any, is_cli_call: bool = True) -> Any:
        # Lightly itself has no `method`; what a name stands for is checked by our config.
        if OmegaConf.select(OmegaConf.create(cfg), "method.name") is None:
            return self._original(cfg, is_cli_call)
        return hydra_job(cfg)

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return _joined, ()


def _joined() -> Any:
    return _dispatch_in(importlib.import_module(LIGHTLY_COMMAND))


def _dispatch_in(train_cli: Any) -> _Dispatch:
    if not isinstance(train_cli._train_cli, _Dispatch):
        train_cli._train_cli = _Dispatch(train_cli._train_cli)
    found: _Dispatch = train_cli._train_cli
    return found


def _dotted(path: str) -> str:
    return path.replace("/", ".")
