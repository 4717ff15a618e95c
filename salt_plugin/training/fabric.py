"""Lightning Fabric, as a stage uses it: where, together with whom, and in which precision."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from salt_plugin.config import RunConfig
from salt_plugin.training.execution import autocast_dtype, devices, uses_gpu
from salt_plugin.training.ranks import PATIENCE
from salt_plugin.training.world import publish, started_tasks


class Autocast(MixedPrecision):
    """Autocast that leaves inputs alone: pixels to predict stay in float32."""

    def convert_input(self, data: Any) -> Any:
        """Returns what it is given."""
        return data


def new_fabric(config: RunConfig) -> Fabric:
    """Returns the Fabric of a stage, not yet launched."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")
    environment, placement = _placement(config)
    dtype = autocast_dtype(config)
    plugins: list[Any] = [environment]
    if dtype is not None:
        device = "cuda" if uses_gpu(config) else "cpu"
        plugins.append(Autocast("bf16-mixed" if dtype is torch.bfloat16 else "16-mixed", device))
    precision = None if dtype is not None else config.trainer.precision
    return Fabric(**placement, plugins=plugins, precision=precision)


def _placement(config: RunConfig) -> tuple[ClusterEnvironment, dict[str, Any]]:
    """Returns the environment and arguments for where and together with whom to train.

    Lightning's own Slurm environment is not used: it refuses tasks that were not given node by
    node, and would have Slurm run the job again by itself.
    """
    tasks, visible = started_tasks(), torch.cuda.device_count()
    accelerator = "cuda" if uses_gpu(config) else "cpu"
    strategy = DDPStrategy(timeout=PATIENCE) if devices(config) > 1 else "auto"
    where = {"accelerator": accelerator, "strategy": strategy}
    if tasks is None:
        return LightningEnvironment(), {**where, "devices": devices(config)}
    if uses_gpu(config) and visible == 1:
        tasks = tasks._replace(local_rank=0, nodes=tasks.size)
    publish(tasks)
    spread = {"devices": tasks.size // tasks.nodes, "num_nodes": tasks.nodes}
    return TorchElasticEnvironment(), {**where, **spread}
