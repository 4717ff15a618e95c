"""One stage, from where it stopped to its encoder file."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from pytorch_lightning.utilities.model_summary import summarize

from salt_plugin.checkpoints import save_encoder, save_head, save_predictor
from salt_plugin.config import RunConfig
from salt_plugin.data.sampler import micro_batches
from salt_plugin.errors import Interrupted, LoaderError, LostOthersError, SaltError
from salt_plugin.models import Head
from salt_plugin.report.console import console
from salt_plugin.stop_signals import StopSignals
from salt_plugin.training import sharding, world
from salt_plugin.training.build import Stage
from salt_plugin.training.checkpoint import resume_point
from salt_plugin.training.execution import (
    autocast_dtype,
    devices,
    divides,
    set_up,
    sharing,
    uses_gpu,
)
from salt_plugin.training.loop import Autocast, train
from salt_plugin.training.records import Records, take_up
from salt_plugin.training.sharding import Undivided
from salt_plugin.training.world import Ranks, lost_others


def fit(stage: Stage) -> None:
    """Trains a stage, from where it stopped, and writes its encoder (and a predictor or head).

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
        _fit(stage, signals)
    except (LoaderError, LostOthersError) as error:
        raise _ended(stage, error, signals) from error
    except RuntimeError as error:
        if not lost_others(error):
            raise
        reason = str(error).splitlines()[0]
        lost = LostOthersError(
            f"another process of this training has ended or does not answer ({reason})"
        )
        raise _ended(stage, lost, signals) from error
    finally:
        signals.restore()


def _fit(stage: Stage, signals: StopSignals) -> None:
    run, config, files = stage.run, stage.run.config, stage.files
    resumed = resume_point(files.last_checkpoint)
    fabric = _new_fabric(config)
    ranks = Ranks(fabric.global_rank, fabric.world_size)
    ranks.require_alike({f"the last step in {files.root}": resumed.step})
    if resumed.step and ranks.is_first:
        console().print(f"{stage.name} goes on from step {resumed.step}")
    elif stage.plan.steps_before and ranks.is_first:
        before = config.method.continue_from
        console().print(f"{stage.name} continues {before}, step {stage.plan.steps_before}")
    if config.trainer.enable_model_summary and ranks.is_first:
        console().print(str(summarize(stage.method)))
    set_up(stage.method, config, stage.plan.steps)
    held = take_up(stage, resumed)
    if divides(config):
        stage = replace(stage, undivided=Undivided(stage.method))
    model = fabric.setup_module(stage.method)
    optimizer: Any = fabric.setup_optimizers(stage.method.optimizer())
    precision = fabric.strategy.precision
    records = Records(stage, resumed, held, ranks, precision, optimizer, signals)
    del held  # as large as what is trained
    if records.accuracy is not None and not resumed.step:
        records.accuracy.start()
    stall = config.method.data.stall
    if stall is not None and ranks.size > 1:  # before others give us up: this one names the file
        stall = min(stall, 0.9 * world.PATIENCE.total_seconds())
    batches = run.batches(
        stage.plan.seed,
        total_steps=stage.plan.steps if stage.plan.budget is None else None,
        start_step=resumed.step,
        rank=ranks.rank,
        world_size=ranks.size,
        sharing=sharing(config),
        stall=stall,
    )
    clips, at_once = config.method.global_batch_size, config.loader.batch_size
    signals.listen()
    try:
        count = len(micro_batches(clips, at_once, ranks.rank, ranks.size))
        train(fabric, model, optimizer, batches, count, records)
    finally:
        records.close()
    records.make_whole()
    if records.accuracy is not None:
        records.accuracy.conclude()
    _write_encoder(records)
    ranks.gather(None)  # the next stage reads the file in every process
    (stop,) = ranks.largest(signals.received)
    if stop:
        raise Interrupted(
            f"saved at step {records.ledger.steps}, the last of the {stage.name}; "
            f"{run.directory.goes_on}",
            stop,
        )


def _new_fabric(config: RunConfig) -> Fabric:
    """Returns the Fabric of a stage, whose processes have met before.

    Lightning's own Slurm environment is not used: it refuses tasks that were not given node by
    node, and would have Slurm run the job again by itself.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")
    accelerator, dtype = "cuda" if uses_gpu(config) else "cpu", autocast_dtype(config)
    tasks, count = world.started_tasks(), devices(config)
    if tasks is not None:
        if uses_gpu(config) and torch.cuda.device_count() == 1:
            tasks = tasks._replace(local_rank=0, nodes=tasks.size)
        world.publish(tasks)
    plugins: list[Any] = [LightningEnvironment() if tasks is None else TorchElasticEnvironment()]
    if dtype is not None:
        plugins.append(
            Autocast("bf16-mixed" if dtype is torch.bfloat16 else "16-mixed", accelerator)
        )
    nodes = 1 if tasks is None else tasks.nodes
    strategy: Any = DDPStrategy(timeout=world.PATIENCE) if count > 1 else "auto"
    if divides(config):
        strategy = sharding.strategy(count, world.PATIENCE)
    fabric = Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=count // nodes,
        num_nodes=nodes,
        plugins=plugins,
        precision=config.trainer.precision if dtype is None else None,
    )
    fabric.launch()
    return fabric


def _write_encoder(records: Records) -> None:
    """Writes the encoders of a stage that is done, and a student's predictor; the result last."""
    stage = records.stage
    method, files = stage.method, stage.files
    method.check_frozen()
    method.cpu()  # the next stage needs the GPU's memory
    if records.ranks.is_first:
        predictor = getattr(method, "predictor", None)
        if predictor is not None:
            save_predictor(predictor, method.result, files.predictor)
        head = getattr(method, "head", None)
        if isinstance(head, Head):
            save_head(head, method.result, files.head)
        card = stage.card(records.ledger)
        for kind, encoder in method.others.items():
            save_encoder(encoder, files.other(kind), card)
        save_encoder(method.result, files.encoder, card)


def _ended(stage: Stage, error: LoaderError | LostOthersError, signals: StopSignals) -> SaltError:
    """Returns the error of a stage that has ended early, and what is saved of it."""
    step = resume_point(stage.files.last_checkpoint).step
    saved = f"Saved at step {step}; {stage.run.directory.goes_on}"
    message = f"{stage.name}: {str(error).rstrip('.')}. {saved if step else 'Nothing is saved yet'}"
    if signals.received:
        return Interrupted(message, signals.received)
    # A stall before anything is saved would be the next attempt's too.
    lost = step or isinstance(error, LostOthersError)
    return LostOthersError(message) if lost else SaltError(message)
