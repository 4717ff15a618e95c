"""Training one stage with Lightning, from where it stopped, to its encoder file."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NoReturn

import pytorch_lightning
import torch
from pytorch_lightning import Trainer

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
from salt_plugin.callbacks.ranks import lost_others
from salt_plugin.callbacks.resume import resume_point
from salt_plugin.checkpoints import save_encoder, save_predictor
from salt_plugin.compute import recomputed
from salt_plugin.config import RunConfig
from salt_plugin.data.quarantine import Quarantine
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_loader
from salt_plugin.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    LostOthersError,
    SaltError,
)
from salt_plugin.masks import MaskCollator
from salt_plugin.methods import SALT, LatentPrediction
from salt_plugin.run_directory import RunDirectory, last_stage
from salt_plugin.stages.build import Stage
from salt_plugin.stages.execution import set_up, sharing
from salt_plugin.stages.length import most_steps
from salt_plugin.stages.parts import Parts
from salt_plugin.stages.trainer import new_trainer
from salt_plugin.stop_signals import StopSignals


def fit(
    stage: Stage, config: RunConfig, parts: Parts, videos: VideoList, run: RunDirectory
) -> None:
    """Trains a stage, from where it stopped, and writes its encoder (and a student's predictor).

    Raises:
        CheckpointError: The checkpoint to resume from is unreadable.
        Interrupted: A signal has stopped training, which has saved what it had done.
        LostOthersError: Another process of the training has ended.
        SaltError: Training ended early, or the frozen teacher has changed.
    """
    files = stage.files
    files.make()
    resumed_from, start_step = resume_point(files.last_checkpoint)
    ranks = Ranks({"hydra.run.dir": str(run.root), f"the last step in {files.root}": start_step})
    accounts = _accounts(stage, config, parts, ranks)
    collapse = Collapse()
    metrics = Metrics(files.root, ranks, accounts, collapse, start_step)
    signals, often = StopSignals(), config.method.checkpoint
    limit = config.method.max_nonfinite_steps
    nonfinite = NonFinite(ranks, files.nonfinite, limit, stage.seed, start_step)
    writer = BackgroundWriter(start_step, beside=[files.metrics, run.skipped])
    method = stage.method
    before = method.teacher_fingerprint if isinstance(method, SALT) else None
    card = partial(_card, stage, config, parts, accounts, before)
    budget = None
    if stage.budget is not None:
        budget = Budget(accounts, stage.budget, stage.total_steps)
        method.clock = budget.position
    clips = config.method.global_batch_size
    assert clips is not None, "train.run sets it"
    quarantine = Quarantine(videos.paths, clips)
    trainer = new_trainer(
        config,
        stage.total_steps if budget is None else -1,
        callbacks=[
            ranks,
            StepRandomness(stage.seed),
            accounts,
            *([budget] if budget else []),
            collapse,
            metrics,
            SkippedFiles(
                ranks,
                run.skipped,
                len(set(videos.paths)),
                config.method.data.max_bad,
                quarantine,
            ),
            Progress(stage.name, stage.total_steps, accounts.ledger),
            nonfinite,
            KeptEncoders(files, _keep_every(stage, config), metrics, nonfinite, card, start_step),
            Checkpoints(
                files.last_checkpoint,
                resumed_from,
                often.every_n_steps,
                often.every_minutes,
                writer,
                ranks,
                nonfinite,
                signals,
            ),
        ],
        writer=writer,
        root=files.root,
    )
    loader = training_loader(
        config,
        videos,
        parts.transform,
        MaskCollator(parts.masks, parts.grid, stage.seed, trainer.global_rank),
        seed=stage.seed,
        total_steps=_loaded_steps(stage, config, parts),
        start_step=start_step,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        sharing=sharing(config),
        quarantine=quarantine,
    )
    set_up(method, config, stage.total_steps)
    try:
        trainer.fit(method, loader, ckpt_path=resumed_from, weights_only=True)
        _leave(stage, config, trainer, budget, card)
        (signal_number,) = ranks.largest([signals.received])
    except (RuntimeError, KeyError) as error:
        if isinstance(error, KeyError) or "loading state_dict" in str(error):
            raise CheckpointError(
                f"{resumed_from} does not fit this stage ({error}); delete it to start "
                "the stage again"
            ) from error
        if lost_others(error):
            raise LostOthersError(
                f"{stage.name}: another process of this training has ended or does not answer "
                f"({str(error).splitlines()[0]}); the same command with the same hydra.run.dir "
                f"goes on from the last checkpoint, step {resume_point(files.last_checkpoint).step}"
            ) from error
        raise
    except SystemExit:  # what Lightning makes of Ctrl-C before the first step
        _ended_early(stage, trainer)
    finally:
        signals.restore()
    if signal_number:
        raise Interrupted(
            f"saved at step {trainer.global_step}, the last of the {stage.name}; the same command "
            "goes on",
            signal_number,
        )


def _leave(
    stage: Stage,
    config: RunConfig,
    trainer: Trainer,
    budget: Budget | None,
    card: Callable[[int], dict[str, Any]],
) -> None:
    method, files = stage.method, stage.files
    done = budget.exhausted if budget else trainer.global_step >= stage.total_steps
    if not done:
        _ended_early(stage, trainer)
    if trainer.global_step == 0:
        raise ConfigError(
            f"compute.budget={config.compute.budget:g} does not cover the first step of the "
            f"{stage.name}; give more"
        )
    if isinstance(method, SALT) and not method.teacher.is_intact():
        raise SaltError("the frozen teacher's weights have changed during training; please report")
    if trainer.is_global_zero:
        encoder = method.kept_encoder.cpu()
        if isinstance(method, LatentPrediction):
            save_predictor(method.head.cpu(), encoder, files.predictor)
        save_encoder(encoder, files.encoder, card(trainer.global_step))
    trainer.strategy.barrier()  # the next stage reads the file in every process


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


def _loaded_steps(stage: Stage, config: RunConfig, parts: Parts) -> int:
    if stage.budget is None:
        return stage.total_steps
    return most_steps(stage.budget, config, parts, stage.step_cost)


def _keep_every(stage: Stage, config: RunConfig) -> int | None:
    """The teacher of a SALT run is a means: encoders are kept of what the run is for."""
    wanted = stage.name == last_stage(config.method.name)
    return config.method.encoders_every_n_steps if wanted else None


def _ended_early(stage: Stage, trainer: Trainer) -> NoReturn:
    kept = resume_point(stage.files.last_checkpoint).step
    raise SaltError(
        f"{stage.name}: stopped at step {trainer.global_step} of "
        f"{'about ' if stage.budget else ''}{stage.total_steps}; the same "
        f"command with the same hydra.run.dir goes on from the last checkpoint, step {kept}"
    ) from None


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
