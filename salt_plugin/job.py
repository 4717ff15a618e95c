"""The training job as a Hydra application runs it, in our command and in the host's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from salt_plugin.errors import Interrupted, SaltError
from salt_plugin.report.console import accept_any_name


def train_job(cfg: DictConfig) -> None:
    """Trains what Hydra has composed; a mistake of the user ends in one line.

    Raises:
        SystemExit: With status 1 after such a mistake; with 75, or 130 after Ctrl-C, where a signal
            has stopped training and the same command goes on: a job of Hydra's launcher for Slurm
            is queued again. With 75 also where a process that the training needs has ended.
    """
    from salt_plugin.train import run

    accept_any_name()
    try:
        run(cfg, Path(HydraConfig.get().runtime.output_dir))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        if stop.exit_status == os.EX_TEMPFAIL and _is_sent_to_slurm():
            # submitit's own way queues it before anything is saved; in training, signals are ours.
            from salt_plugin.studies.slurm_commands import own_job_id, requeue

            job = own_job_id()
            if job is not None:
                requeue(job)
        raise SystemExit(stop.exit_status) from None
    except SaltError as error:
        fail(_without_traceback(str(error)), error.exit_status)


def _is_sent_to_slurm() -> bool:
    """Returns whether Hydra's launcher for Slurm runs this job; `salt launch` has its own ways."""
    hydra: Any = HydraConfig.get()
    launcher = OmegaConf.select(hydra, "launcher._target_", default="")
    return hydra.mode == RunMode.MULTIRUN and launcher.endswith("submitit_launcher.SlurmLauncher")


def _without_traceback(message: str) -> str:
    """Returns the message alone of an error that crossed from a loader worker."""
    if "Original Traceback" not in message:
        return message
    return message.strip().splitlines()[-1].partition(": ")[2]


def fail(message: str, status: int = 1) -> NoReturn:
    """Prints an error and exits."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)
