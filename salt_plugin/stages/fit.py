"""Training one stage with Lightning, from where it stopped, to its encoder file."""

from __future__ import annotations

from typing import NoReturn

from pytorch_lightning import Trainer

from salt_plugin.callbacks.ranks import PATIENCE, lost_others
from salt_plugin.callbacks.resume import resume_point
from salt_plugin.checkpoints import save_encoder, save_predictor
from salt_plugin.config import RunConfig
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_loader
from salt_plugin.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    LoaderError,
    LostOthersError,
    SaltError,
)
from salt_plugin.masks import MaskCollator
from salt_plugin.methods import SALT, LatentPrediction
from salt_plugin.run_directory import RunDirectory
from salt_plugin.stages.build import Stage
from salt_plugin.stages.execution import set_up, sharing
from salt_plugin.stages.length import most_steps
from salt_plugin.stages.parts import Parts
from salt_plugin.stages.trainer import new_trainer
from salt_plugin.stages.watch import Watch, watch

_GOES_ON = "The same command with the same hydra.run.dir goes on from the last checkpoint"


def fit(
    stage: Stage, config: RunConfig, parts: Parts, videos: VideoList, run: RunDirectory
) -> None:
    """Trains a stage, from where it stopped, and writes its encoder (and a student's predictor).

    Raises:
        CheckpointError: The checkpoint to resume from is unreadable.
        Interrupted: A signal has stopped training, which has saved what it had done.
        LostOthersError: Another process of the training, or one that reads videos, has ended or
            does not answer.
        SaltError: Training ended early, or the frozen teacher has changed.
    """
    files = stage.files
    files.make()
    resumed = resume_point(files.last_checkpoint)
    watched = watch(stage, config, parts, videos, run, resumed)
    trainer = new_trainer(
        config,
        stage.total_steps if stage.budget is None else -1,
        callbacks=watched.callbacks,
        writer=watched.writer,
        root=files.root,
    )
    loader = training_loader(
        config,
        videos,
        parts.transform,
        MaskCollator(parts.masks, parts.grid, stage.seed, trainer.global_rank),
        seed=stage.seed,
        total_steps=_loaded_steps(stage, config, parts),
        start_step=resumed.step,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        sharing=sharing(config),
        quarantine=watched.quarantine,
        stall=_stall(config, trainer.world_size),
    )
    set_up(stage.method, config, stage.total_steps)
    try:
        trainer.fit(stage.method, loader, ckpt_path=resumed.path, weights_only=True)
        _leave(stage, config, trainer, watched)
        (signal_number,) = watched.ranks.largest([watched.signals.received])
    except LoaderError as error:
        raise _without_batches(stage, str(error), watched.signals.received) from error
    except (RuntimeError, KeyError) as error:
        if isinstance(error, KeyError) or "loading state_dict" in str(error):
            raise CheckpointError(
                f"{resumed.path} does not fit this stage ({error}); delete it to start "
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
        watched.signals.restore()
    if signal_number:
        raise Interrupted(
            f"saved at step {trainer.global_step}, the last of the {stage.name}; the same command "
            "goes on",
            signal_number,
        )


def _stall(config: RunConfig, world_size: int) -> float | None:
    """Returns how long to wait for a batch: not as long as others, who know less, wait for us."""
    stall: float | None = config.method.data.stall
    if stall is None or world_size == 1:
        return stall
    return min(stall, 0.9 * PATIENCE.total_seconds())


def _without_batches(stage: Stage, reason: str, signal_number: int) -> SaltError:
    kept = resume_point(stage.files.last_checkpoint).step
    saved = f"{_GOES_ON}, step {kept}" if kept else "Nothing is saved yet"
    message = f"{stage.name}: {reason} {saved}"
    if signal_number:
        return Interrupted(message, signal_number)
    return LostOthersError(message) if kept else SaltError(message)


def _leave(stage: Stage, config: RunConfig, trainer: Trainer, watched: Watch) -> None:
    method, files, budget = stage.method, stage.files, watched.budget
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
        save_encoder(encoder, files.encoder, watched.card(trainer.global_step))
    trainer.strategy.barrier()  # the next stage reads the file in every process


def _loaded_steps(stage: Stage, config: RunConfig, parts: Parts) -> int:
    if stage.budget is None:
        return stage.total_steps
    return most_steps(stage.budget, config, parts, stage.step_cost)


def _ended_early(stage: Stage, trainer: Trainer) -> NoReturn:
    kept = resume_point(stage.files.last_checkpoint).step
    raise SaltError(
        f"{stage.name}: stopped at step {trainer.global_step} of "
        f"{'about ' if stage.budget else ''}{stage.total_steps}; the same "
        f"command with the same hydra.run.dir goes on from the last checkpoint, step {kept}"
    ) from None
