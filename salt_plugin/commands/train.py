"""`salt train`: Lightly's training command under our own name."""

from __future__ import annotations

import sys

import hydra

from salt_plugin.host import LIGHTLY_CONFIG, hydra_job


def main(arguments: list[str]) -> None:
    """Trains a method; SALT unless another is named.

    Args:
        arguments: Hydra's overrides.
    """
    if not any(argument.lstrip("+").startswith("method=") for argument in arguments):
        arguments = ["method=salt", *arguments]
    # Under DDP the first process starts the others with these arguments, which have no verb.
    sys.argv = [sys.argv[0], *arguments]
    hydra.main(config_path=LIGHTLY_CONFIG, config_name="config", version_base=None)(hydra_job)()
