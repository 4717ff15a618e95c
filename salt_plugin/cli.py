"""The `salt` command: `salt VERB [hydra overrides]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from salt_plugin import __version__
from salt_plugin.errors import SaltError
from salt_plugin.host import LIGHTLY_CONFIG

USAGE = """\
usage: salt VERB [hydra overrides]

verbs:
  train      train a method, as lightly-ssl-train does; method=salt unless another is named

salt train --help lists the configuration, salt --version the version."""


def train(cfg: DictConfig) -> None:
    """Runs the training job that Hydra has composed; a mistake of the user ends in one line."""
    from salt_plugin.train import run

    try:
        run(cfg, Path(HydraConfig.get().runtime.output_dir))
    except SaltError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Prints an error and exits with status 1."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _train_verb(arguments: list[str]) -> None:
    if not any(argument.lstrip("+").startswith("method=") for argument in arguments):
        arguments = ["method=salt", *arguments]
    sys.argv = ["salt train", *arguments]
    hydra.main(config_path=LIGHTLY_CONFIG, config_name="config", version_base=None)(train)()


VERBS: dict[str, Callable[[list[str]], None]] = {"train": _train_verb}


def main() -> None:
    """Entry point of the `salt` script."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(__version__)
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
    elif arguments[0] in VERBS:
        VERBS[arguments[0]](arguments[1:])
    else:
        fail(f"unknown verb {arguments[0]!r}; choose one of {', '.join(VERBS)}")
