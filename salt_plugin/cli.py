"""The `salt` command: `salt VERB [hydra overrides]`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import hydra

from salt_plugin import __version__
from salt_plugin.host import LIGHTLY_CONFIG
from salt_plugin.job import fail, train_job

USAGE = """\
usage: salt VERB [hydra overrides]

verbs:
  train      train a method, as lightly-ssl-train does; method=salt unless another is named

salt train --help lists the configuration, salt --version the version."""


def _train(arguments: list[str]) -> None:
    if not any(argument.lstrip("+").startswith("method=") for argument in arguments):
        arguments = ["method=salt", *arguments]
    # Under DDP the first process starts the others with these arguments, which have no verb.
    sys.argv = [sys.argv[0], *arguments]
    hydra.main(config_path=LIGHTLY_CONFIG, config_name="config", version_base=None)(train_job)()


VERBS: dict[str, Callable[[list[str]], None]] = {"train": _train}


def main() -> None:
    """Entry point of the `salt` script."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(__version__)
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
    elif arguments[0] in VERBS:
        VERBS[arguments[0]](arguments[1:])
    elif "=" in arguments[0]:
        _train(arguments)
    else:
        fail(f"unknown verb {arguments[0]!r}; choose one of {', '.join(VERBS)}")
