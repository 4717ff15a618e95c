"""Lightning's trainer, as a stage uses it: where, and together with whom."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy

from salt_plugin.callbacks.ranks import PATIENCE
from salt_plugin.callbacks.writer import BackgroundWriter
from salt_plugin.config import RunConfig
from salt_plugin.stages.execution import devices, uses_gpu
from salt_plugin.stages.world import publish, started_tasks


def new_trainer(
    config: RunConfig,
    total_steps: int,
    callbacks: list[Callback],
    writer: BackgroundWriter,
    root: Path,
) -> Trainer:
    """Returns the trainer of a stage; `total_steps` is -1 where a callback ends it."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # The number of workers is the user's, and our sampler starts at the step to resume from.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # the target
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    environment, placement = _placement(config)
    trainer = Trainer(
        **placement,
        plugins=[environment, writer],
        precision=config.trainer.precision,
        max_steps=total_steps,
        max_epochs=-1,
        callbacks=callbacks,
        default_root_dir=root,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=config.trainer.enable_model_summary,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    # Lightning would end without saving after SIGTERM, after a broadcast in its signal handler, and
    # ask every process before each step, waiting for the device. `Checkpoints` does all of that.
    without: Any = trainer
    without._signal_connector.register_signal_handlers = lambda: None
    without.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    return trainer


def _placement(config: RunConfig) -> tuple[ClusterEnvironment, dict[str, Any]]:
    """Returns the trainer's environment and arguments for where and together with whom to train.

    Lightning's own Slurm environment is not used: it refuses tasks that were not given node by
    node, and would have Slurm run the job again by itself.
    """
    tasks, visible = started_tasks(), torch.cuda.device_count()
    accelerator = "gpu" if uses_gpu(config) else "cpu"
    strategy = DDPStrategy(timeout=PATIENCE) if devices(config) > 1 else "auto"
    where = {"accelerator": accelerator, "strategy": strategy}
    if tasks is None:
        return LightningEnvironment(), {**where, "devices": devices(config)}
    if uses_gpu(config) and visible == 1:
        tasks = tasks._replace(local_rank=0, nodes=tasks.size)
    publish(tasks)
    spread = {"devices": tasks.size // tasks.nodes, "num_nodes": tasks.nodes}
    return TorchElasticEnvironment(), {**where, **spread}
