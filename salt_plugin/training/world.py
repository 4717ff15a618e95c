"""The processes that train together, where something else has started them: srun, or torchrun."""

from __future__ import annotations

import os
from typing import NamedTuple

from pytorch_lightning.plugins.environments import SLURMEnvironment

from salt_plugin.errors import ConfigError


class Tasks(NamedTuple):
    """Processes that were started from outside, each for one device.

    Attributes:
        size: How many, on all nodes.
        rank: Which of them this is.
        local_rank: Which of those on its node it is.
        nodes: Nodes that they run on.
    """

    size: int
    rank: int
    local_rank: int
    nodes: int


def started_tasks() -> Tasks | None:
    """Returns this process's place among those started together, None where it is alone.

    torchrun's variables (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), which submitit can set as well, go
    before those of srun. A job script that calls no srun runs one process, whatever it was given.

    Raises:
        ConfigError: The variables contradict each other.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        size, rank = _number("WORLD_SIZE"), _number("RANK")
        local_size = _number("LOCAL_WORLD_SIZE", size)
        tasks = Tasks(size, rank, _number("LOCAL_RANK", rank % local_size), size // local_size)
    elif "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ:
        tasks = Tasks(
            size=_number("SLURM_STEP_NUM_TASKS"),
            rank=_number("SLURM_PROCID"),
            local_rank=_number("SLURM_LOCALID", 0),
            nodes=_number("SLURM_STEP_NUM_NODES", 1),
        )
    else:
        return None
    if not 0 <= tasks.rank < tasks.size:
        raise ConfigError(
            f"process {tasks.rank} of {tasks.size} cannot be: RANK and WORLD_SIZE (under srun "
            "SLURM_PROCID and SLURM_STEP_NUM_TASKS) contradict each other"
        )
    if tasks.size % tasks.nodes:
        raise ConfigError(
            f"{tasks.size} processes on {tasks.nodes} nodes: expected as many on each (under srun: "
            "--ntasks-per-node)"
        )
    return tasks if tasks.size > 1 else None


def sharing_cores(tasks: Tasks) -> int:
    """Returns how many of the processes share the cores that this one may use."""
    # srun binds each task to cores of its own, where it was told how many.
    bound = "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_CPUS_PER_TASK" in os.environ
    return 1 if bound else tasks.size // tasks.nodes


def publish(tasks: Tasks) -> None:
    """Sets the variables that torch reads: srun's tasks then look like torchrun's."""
    os.environ.update(
        RANK=str(tasks.rank),
        WORLD_SIZE=str(tasks.size),
        LOCAL_RANK=str(tasks.local_rank),
        LOCAL_WORLD_SIZE=str(tasks.size // tasks.nodes),
    )
    nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    # Jobs that share a node must not meet on one port, and all tasks of a job step on the same.
    number = _number("SLURM_JOB_ID", 0) + _number("SLURM_STEP_ID", 0)
    os.environ.setdefault("MASTER_PORT", str(15000 + number % 10000))


def _number(variable: str, otherwise: int | None = None) -> int:
    value = os.environ.get(variable, None if otherwise is None else str(otherwise))
    if value is None or not value.isdecimal():
        raise ConfigError(f"{variable}={value!r} in the environment: expected a number")
    return int(value)
