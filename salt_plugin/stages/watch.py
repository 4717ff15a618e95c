"""The callbacks of a stage, and what else is made for it beside them."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning
import torch
from pytorch_lightning import Callback

from salt_plugin import __version__
from salt_plugin.callbacks import (
    Accounts,
    BackgroundWriter,
    Budget,
    Checkpoints,
    Collapse,
    KeptEncoders,
    Metrics,
    NonFinite,
    Progress,
    Ranks,
    SkippedFiles,
    StepRandomness,
)
from salt_plugin.callbacks.resume import ResumePoint
from salt_plugin.compute import recomputed
from salt_plugin.config import RunConfig
from salt_plugin.data.quarantine import Quarantine
from salt_plugin.data.sources import VideoList
from salt_plugin.methods import SALT
from salt_plugin.run_directory import RunDirectory, last_stage
from salt_plugin.stages.build import Stage
from salt_plugin.stages.parts import Parts
from salt_plugin.stop_signals import StopSignals


class Watch(NamedTuple):
    """What watches a stage.

    Attributes:
        callbacks: In the order in which Lightning has to call them.
        ranks: The first of them.
        budget: One of them; None where steps end the stage.
        writer: Writes checkpoints.
        signals: Ask training to stop.
        quarantine: Files that the loader leaves out.
        card: Makes the card of an encoder after a number of steps.
    """

    callbacks: list[Callback]
    ranks: Ranks
    budget: Budget | None
    writer: BackgroundWriter
    signals: StopSignals
    quarantine: Quarantine
    card: Callable[[int], dict[str, Any]]


def watch(
    stage: Stage,
    config: RunConfig,
    parts: Parts,
    videos: VideoList,
    run: RunDirectory,
    resumed: ResumePoint,
) -> Watch:
    """Returns what watches a stage that goes on from a checkpoint, or begins."""
    files, method = stage.files, stage.method
    ranks = Ranks({"hydra.run.dir": str(run.root), f"the last step in {files.root}": resumed.step})
    accounts = _accounts(stage, config, parts, ranks)
    budget = None
    if stage.budget is not None:
        budget = Budget(accounts, stage.budget, stage.total_steps)
        method.clock = budget.position
    collapse = Collapse()
    metrics = Metrics(files.root, ranks, accounts, collapse, resumed.step)
    clips = config.method.global_batch_size
    assert clips is not None, "train.run sets it"
    quarantine = Quarantine(videos.paths, clips)
    limit = config.method.max_nonfinite_steps
    nonfinite = NonFinite(ranks, files.nonfinite, limit, stage.seed, resumed.step)
    teacher = method.teacher_fingerprint if isinstance(method, SALT) else None
    card = partial(_card, stage, config, parts, accounts, teacher)
    writer = BackgroundWriter(resumed.step, beside=[files.metrics, run.skipped])
    signals, often = StopSignals(), config.method.checkpoint
    distinct, max_bad = len(set(videos.paths)), config.method.data.max_bad
    callbacks = [
        ranks,
        StepRandomness(stage.seed),
        accounts,
        *([budget] if budget else []),
        collapse,
        metrics,
        SkippedFiles(ranks, run.skipped, distinct, max_bad, quarantine),
        Progress(stage.name, stage.total_steps, accounts.ledger),
        nonfinite,
        KeptEncoders(files, _keep_every(stage, config), metrics, nonfinite, card, resumed.step),
        Checkpoints(
            files.last_checkpoint,
            resumed.path,
            often.every_n_steps,
            often.every_minutes,
            writer,
            ranks,
            nonfinite,
            signals,
        ),
    ]
    return Watch(callbacks, ranks, budget, writer, signals, quarantine, card)


def _accounts(stage: Stage, config: RunConfig, parts: Parts, ranks: Ranks) -> Accounts:
    recomputes = config.method.model.activation_checkpointing
    shape = stage.method.encoder.shape
    return Accounts(
        ranks,
        stage.files.compute,
        stage.name,
        stage.step_cost,
        partial(recomputed, shape, parts.predictor) if recomputes else None,
        stage.inherited,
    )


def _keep_every(stage: Stage, config: RunConfig) -> int | None:
    """The teacher of a SALT run is a means: encoders are kept of what the run is for."""
    wanted = stage.name == last_stage(config.method.name)
    return config.method.encoders_every_n_steps if wanted else None


def _card(
    stage: Stage,
    config: RunConfig,
    parts: Parts,
    accounts: Accounts,
    teacher_fingerprint: str | None,
    steps: int,
) -> dict[str, Any]:
    transform = parts.transform
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
        "teacher_fingerprint": teacher_fingerprint,
        "versions": {
            "salt_plugin": __version__,
            "torch": torch.__version__,
            "pytorch_lightning": pytorch_lightning.__version__,
            "python": platform.python_version(),
        },
    }
