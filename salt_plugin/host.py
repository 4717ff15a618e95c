"""Joining Lightly: its `lightly-ssl-train` command gains our methods.

Lightly has no registry of methods. Its Hydra application is recognised by its config module;
then a config of the same name that knows the `method` group is put before it, and the function
that the command calls is replaced by one that sends our methods to us and all else to Lightly.
`salt train` is an application of our own, whose main config includes Lightly's.
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

from salt_plugin.conf_folder import LIGHTLY_CONFIG as LIGHTLY_CONFIG
from salt_plugin.conf_folder import conf_folder, is_lightlys, is_ours
from salt_plugin.errors import SaltError
from salt_plugin.job import fail, train_job

LIGHTLY_COMMAND = "lightly.cli.train_cli"
LIGHTLY_SCRIPT = "lightly-ssl-train"


def config_path() -> str:
    """Returns the folder of our configs as an entry of Hydra's search path."""
    return f"file://{conf_folder()}"


def is_lightly(search_path: ConfigSearchPath) -> bool:
    """Returns whether the application that starts is Lightly's."""
    return any(is_lightlys(path) for path in _mains(search_path))


def is_salt_train(search_path: ConfigSearchPath) -> bool:
    """Returns whether the application that starts is `salt train`."""
    return any(is_ours(path) for path in _mains(search_path))


def join_lightly(search_path: ConfigSearchPath) -> None:
    """Lets `method=` select one of ours in Lightly's command; the search path plugin calls it."""
    shadow = Path(__file__).parent / "host_config"
    search_path.prepend("salt_plugin", f"file://{shadow}")
    include_lightly(search_path)
    train_cli = sys.modules.get(LIGHTLY_COMMAND)
    if train_cli is not None:
        _dispatch_in(train_cli)
    if Path(sys.argv[0]).name == LIGHTLY_SCRIPT:
        _check_command_line()


def _check_command_line() -> None:
    from salt_plugin.config.command_line import check_command_line

    try:
        check_command_line(sys.argv[1:])
    except SaltError as error:
        fail(str(error))


def include_lightly(search_path: ConfigSearchPath) -> None:
    """Lets a main config include Lightly's, as `config/config`."""
    search_path.append("salt_plugin", "pkg://lightly.cli")


def hydra_job(cfg: DictConfig) -> None:
    """Trains what Hydra has composed, in this process or in one that a launcher has started."""
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
        method = OmegaConf.select(OmegaConf.create(cfg), "method")
        if method is None:
            return self._original(cfg, is_cli_call)
        if method.get("name") is None:  # a preset alone
            fail("method.name is missing: values of a method are set; name one, e.g. method=salt")
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


def _mains(search_path: ConfigSearchPath) -> list[str]:
    return [entry.path for entry in search_path.get_path() if entry.provider == "main"]
