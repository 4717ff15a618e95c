"""What a stage books, writes and heeds beside its steps."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pytorch_lightning
import torch

from salt_plugin import __version__
from salt_plugin.config import RunConfig, registry
from salt_plugin.data.sources import VideoList
from salt_plugin.run_directory import RunDirectory
from salt_plugin.stop_signals import StopSignals
from salt_plugin.training.accounts import Accounts
from salt_plugin.training.build import Stage
from salt_plugin.training.kept_encoders import KeptEncoders
from salt_plugin.training.metrics import Metrics
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.parts import Parts
from salt_plugin.training.progress import Progress
from salt_plugin.training.ranks import Ranks
from salt_plugin.training.resume import ResumePoint
from salt_plugin.training.saving import Saving
from salt_plugin.training.skipped import SkippedFiles
from salt_plugin.training.state import TrainingState
from salt_plugin.training.writer import BackgroundWriter


@dataclass(frozen=True)
class Records:
    """What the loop calls after each step.

    Attributes:
        ranks: The processes that train together.
        accounts: Price and ledger.
        metrics: A row a step.
        skipped: Files that could not be read.
        progress: For a person to look at.
        nonfinite: Steps that are not finite.
        kept: Encoders on the way.
        saving: Checkpoints.
        signals: Ask training to stop.
        goes_on: How to go on afterwards.
    """

    ranks: Ranks
    accounts: Accounts
    metrics: Metrics
    skipped: SkippedFiles
    progress: Progress
    nonfinite: NonFinite
    kept: KeptEncoders
    saving: Saving
    signals: StopSignals
    goes_on: str

    def close(self) -> None:
        """Ends what has a file or a line of the terminal open."""
        self.progress.stop()
        self.metrics.close()
        self.saving.close()


def open_records(
    stage: Stage,
    config: RunConfig,
    parts: Parts,
    videos: VideoList,
    run: RunDirectory,
    resumed: ResumePoint,
    ranks: Ranks,
    accounts: Accounts,
    state: TrainingState,
    signals: StopSignals,
) -> Records:
    """Returns the records of a stage that begins, or goes on; files are cut back to that step."""
    files, often = stage.files, config.method.checkpoint
    metrics = Metrics(files.root, ranks, resumed.step)
    files_in_all, max_bad = len(set(videos.paths)), config.method.data.max_bad
    skipped = SkippedFiles(ranks, run.skipped, files_in_all, max_bad)

    def write_beside(step: int) -> None:
        # A resume counts on them: they must not be behind the checkpoint.
        accounts.write()
        metrics.flush()
        skipped.share()

    return Records(
        ranks=ranks,
        accounts=accounts,
        metrics=metrics,
        skipped=skipped,
        progress=Progress(
            stage.name, stage.plan.steps, accounts.ledger, accounts.position(), ranks.is_first
        ),
        nonfinite=state.nonfinite,
        kept=KeptEncoders(
            ranks,
            files,
            _keep_every(stage, config),
            metrics,
            state.nonfinite,
            partial(stage_card, stage, config, parts, accounts),
            resumed.step,
        ),
        saving=Saving(
            files.last_checkpoint,
            resumed,
            often.every_n_steps,
            often.every_minutes,
            BackgroundWriter(resumed.step, beside=[files.metrics, run.skipped]),
            ranks,
            state.nonfinite,
            write_beside,
            state.as_dict,
        ),
        signals=signals,
        goes_on=run.goes_on,
    )


def _keep_every(stage: Stage, config: RunConfig) -> int | None:
    """The teacher of a SALT run is a means: encoders are kept of what the run is for."""
    wanted = stage.name == registry.get(config.method.name).result
    return config.method.encoders_every_n_steps if wanted else None


def stage_card(
    stage: Stage, config: RunConfig, parts: Parts, accounts: Accounts, steps: int
) -> dict[str, Any]:
    """Returns what stands on the card of a stage's encoder after a number of steps."""
    method, transform = stage.method, parts.transform
    return {
        "method": config.method.name,
        "stage": stage.name,
        "input": {**asdict(config.method.clip), "mean": transform.mean, "std": transform.std},
        "training": {
            "steps": steps,
            "batch_size": config.method.global_batch_size,
            "seed": config.seed,
        },
        "compute": accounts.as_dict(),
        "teacher_fingerprint": method.teacher_fingerprint,
        "versions": {
            "salt_plugin": __version__,
            "torch": torch.__version__,
            "pytorch_lightning": pytorch_lightning.__version__,
            "python": platform.python_version(),
        },
    }
