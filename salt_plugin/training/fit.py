"""One stage, from where it stopped to its encoder file."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from pytorch_lightning.utilities.model_summary import summarize
from torch.optim import Optimizer

from salt_plugin.batch import MaskCollator
from salt_plugin.checkpoints import save_encoder, save_predictor
from salt_plugin.config import RunConfig
from salt_plugin.data.sampler import micro_batches
from salt_plugin.data.sources import VideoList
from salt_plugin.data.stream import training_loader
from salt_plugin.errors import ConfigError, Interrupted, LoaderError, LostOthersError, SaltError
from salt_plugin.report.console import console
from salt_plugin.run_directory import RunDirectory, comparable
from salt_plugin.stop_signals import StopSignals
from salt_plugin.training import world
from salt_plugin.training.accounts import Accounts
from salt_plugin.training.build import Stage
from salt_plugin.training.execution import set_up, sharing
from salt_plugin.training.fabric import new_fabric
from salt_plugin.training.loop import train
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.parts import Parts
from salt_plugin.training.ranks import Ranks, lost_others
from salt_plugin.training.records import open_records, stage_card
from salt_plugin.training.resume import ResumePoint, resume_point
from salt_plugin.training.state import TrainingState


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
    stage.files.make()
    signals = StopSignals()
    try:
        stop, step = _fit(stage, config, parts, videos, run, signals)
    except (LoaderError, LostOthersError) as error:
        raise _interrupted(stage, error, signals.received, run) from error
    except RuntimeError as error:
        if not lost_others(error):
            raise
        raise LostOthersError(
            f"{stage.name}: another process of this training has ended or does not answer "
            f"({str(error).splitlines()[0]}); saved at step {_saved_step(stage)}; {run.goes_on}"
        ) from error
    finally:
        signals.restore()
    if stop:
        message = f"saved at step {step}, the last of the {stage.name}; {run.goes_on}"
        raise Interrupted(message, stop)


def _fit(
    stage: Stage,
    config: RunConfig,
    parts: Parts,
    videos: VideoList,
    run: RunDirectory,
    signals: StopSignals,
) -> tuple[int, int]:
    """Returns the number of a signal that came, or 0, and the steps done."""
    resumed = resume_point(stage.files.last_checkpoint)
    fabric = new_fabric(config)
    ranks = Ranks(fabric.global_rank, fabric.world_size)
    ranks.require_alike(
        {
            **comparable(config),
            "hydra.run.dir": str(run.root),
            f"the last step in {stage.files.root}": resumed.step,
            "the list of videos": videos.digest(),
        }
    )
    if resumed.step and ranks.is_first:
        console().print(f"{stage.name} goes on from step {resumed.step}")
    if config.trainer.enable_model_summary and ranks.is_first:
        console().print(str(summarize(stage.method)))
    set_up(stage.method, config, stage.plan.steps)
    model = fabric.setup_module(stage.method)
    optimizer: Any = fabric.setup_optimizers(stage.method.optimizer())
    accounts = Accounts(ranks, stage.files.compute, stage.plan, stage.inherited)
    state = _new_state(stage, config, resumed, ranks, fabric, optimizer, accounts)
    state.restore(resumed)
    seed, clips, group = stage.plan.seed, config.method.global_batch_size, config.method.mask_group
    batches = training_loader(
        config,
        videos,
        parts.transform,
        MaskCollator(parts.masks, parts.grid, seed, group, clips),
        seed=seed,
        total_steps=stage.plan.steps if stage.plan.budget is None else None,
        start_step=resumed.step,
        rank=ranks.rank,
        world_size=ranks.size,
        sharing=sharing(config),
        stall=_stall(config, ranks.size),
    )
    records = open_records(
        stage, config, parts, videos, run, resumed, ranks, accounts, state, signals
    )
    signals.listen()
    try:
        count = len(micro_batches(clips, config.loader.batch_size, ranks.rank, ranks.size))
        step = train(fabric, model, optimizer, batches, count, records, resumed.step)
    finally:
        records.close()
    _leave(stage, config, parts, accounts, ranks, step)
    (stop,) = ranks.largest([signals.received])
    return stop, step


def _new_state(
    stage: Stage,
    config: RunConfig,
    resumed: ResumePoint,
    ranks: Ranks,
    fabric: Fabric,
    optimizer: Optimizer,
    accounts: Accounts,
) -> TrainingState:
    precision = fabric.strategy.precision
    nonfinite = NonFinite(
        ranks,
        stage.files.nonfinite,
        config.method.max_nonfinite_steps,
        stage.plan.seed,
        resumed.step,
        getattr(precision, "scaler", None),
    )
    return TrainingState(stage.method, optimizer, precision, accounts.ledger, nonfinite)


def _stall(config: RunConfig, world_size: int) -> float | None:
    """Returns how long to wait for a batch: not as long as others, who know less, wait for us."""
    stall: float | None = config.method.data.stall
    if stall is None or world_size == 1:
        return stall
    return min(stall, 0.9 * world.PATIENCE.total_seconds())


def _leave(
    stage: Stage, config: RunConfig, parts: Parts, accounts: Accounts, ranks: Ranks, step: int
) -> None:
    """Writes the encoder of a stage that is done, and a student's predictor."""
    method, files = stage.method, stage.files
    if step == 0:
        raise ConfigError(
            f"compute.budget={config.compute.budget:g} does not cover the first step of the "
            f"{stage.name}; give more"
        )
    method.check_frozen()
    method.cpu()  # the next stage needs the GPU's memory
    if ranks.is_first:
        predictor = getattr(method, "predictor", None)
        if predictor is not None:
            save_predictor(predictor, method.result, files.predictor)
        card = stage_card(stage, config, parts, accounts, step)
        save_encoder(method.result, files.encoder, card)
    ranks.gather(None)  # the next stage reads the file in every process


def _interrupted(
    stage: Stage, error: LoaderError | LostOthersError, signal_number: int, run: RunDirectory
) -> SaltError:
    kept = _saved_step(stage)
    saved = f"Saved at step {kept}; {run.goes_on}" if kept else "Nothing is saved yet"
    message = f"{stage.name}: {str(error).rstrip('.')}. {saved}"
    if signal_number:
        return Interrupted(message, signal_number)
    # A stall before anything is saved would be the next attempt's too.
    lost = kept or isinstance(error, LostOthersError)
    return LostOthersError(message) if lost else SaltError(message)


def _saved_step(stage: Stage) -> int:
    return resume_point(stage.files.last_checkpoint).step
