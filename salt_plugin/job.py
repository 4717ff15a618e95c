"""The training job as a Hydra application runs it, in our command and in the host's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from salt_plugin.errors import Interrupted, SaltError


def train_job(cfg: DictConfig) -> None:
    """Trains what Hydra has composed; a mistake of the user ends in one line.

    Raises:
        SystemExit: With status 1 after such a mistake; with 75, or 130 after Ctrl-C, where a signal
            has stopped training and the same command goes on.
    """
    from salt_plugin.train import run

    try:
        run(cfg, Path(HydraConfig.get().runtime.output_dir))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_status) from None
    except SaltError as error:
        fail(_without_traceback(str(error)))


def _without_traceback(message: str) -> str:
    """Returns the message alone of an error that crossed from a loader worker."""
    if "Original Traceback" not in message:
        return message
    return message.strip().splitlines()[-1].partition(": ")[2]


def fail(message: str) -> NoReturn:
    """Prints an error and exits with status 1."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)
