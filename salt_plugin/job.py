"""The training job as a Hydra application runs it, in our command and in the host's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from salt_plugin.errors import SaltError


def train_job(cfg: DictConfig) -> None:
    """Trains what Hydra has composed; a mistake of the user ends in one line."""
    from salt_plugin.train import run

    try:
        run(cfg, Path(HydraConfig.get().runtime.output_dir))
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
