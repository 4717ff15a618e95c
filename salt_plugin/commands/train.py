"""`salt train`: Lightly's training command under our own name."""

from __future__ import annotations

import os
import sys

import hydra

from salt_plugin.conf_folder import OUR_CONFIG
from salt_plugin.config.command_line import check_command_line
from salt_plugin.host import hydra_job


def main(arguments: list[str]) -> None:
    """Trains a method; SALT unless another is named.

    Args:
        arguments: What a Hydra application takes, as `lightly-ssl-train` does.

    Raises:
        ConfigError: Hydra cannot read an override; shows the quoting with which it can.
    """
    check_command_line(arguments)
    # Under DDP the first process starts the others with these arguments, which have no verb.
    sys.argv = [sys.argv[0], *arguments]
    if "COMP_LINE" in os.environ:  # what a shell completes: Hydra expects no verb in it
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(" train ", " ", 1)
    hydra.main(config_path=OUR_CONFIG, config_name="config", version_base=None)(hydra_job)()
