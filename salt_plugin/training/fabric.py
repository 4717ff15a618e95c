"""Lightning Fabric, as a stage uses it: where, together with whom, and in which precision."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from salt_plugin.config import RunConfig
from salt_plugin.training import world
from salt_plugin.training.execution import autocast_dtype, devices, uses_gpu
from salt_plugin.training.loop import Autocast


def new_fabric(config: RunConfig) -> Fabric:
    """Returns the Fabric of a stage; its processes have met.

    Lightning's own Slurm environment is not used: it refuses tasks that were not given node by
    node, and would have Slurm run the job again by itself.

    Raises:
        ConfigError: They cannot meet at `MASTER_PORT`.
        LostOthersError: Some have not come.
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
    fabric = Fabric(
        accelerator=accelerator,
        strategy=DDPStrategy(timeout=world.PATIENCE) if count > 1 else "auto",
        devices=count // nodes,
        num_nodes=nodes,
        plugins=plugins,
        precision=config.trainer.precision if dtype is None else None,
    )
    if tasks is not None:
        world.meet(tasks, fabric.strategy.root_device)
    fabric.launch()
    return fabric
