"""The processes that train together: how they were started, where they meet, how they talk."""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import SLURMEnvironment

from salt_plugin.errors import ConfigError, LostOthersError

# How long a process waits for the others before it ends with an error.
PATIENCE = timedelta(minutes=10)

# How long it waits before it says for whom.
QUIET = timedelta(seconds=30)


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
        size, rank = _number("SLURM_STEP_NUM_TASKS"), _number("SLURM_PROCID")
        tasks = Tasks(size, rank, _number("SLURM_LOCALID", 0), _number("SLURM_STEP_NUM_NODES", 1))
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
    # srun binds each task to cores of its own where --cpus-per-task is given.
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
    step = f"{_number('SLURM_JOB_ID', 0)}.{_number('SLURM_STEP_ID', 0)}"
    os.environ.setdefault("MASTER_PORT", str(15000 + zlib.crc32(step.encode()) % 15000))


def meet(tasks: Tasks, device: torch.device) -> None:
    """Waits until all processes are there, and connects them; says for whom it waits.

    Args:
        tasks: This process's place among them, which `publish` has published.
        device: What this process trains on.

    Raises:
        ConfigError: The port to meet on is in use.
        LostOthersError: Some of them have not come in ten minutes.
    """
    if dist.is_initialized():
        return
    missing, until = [0], time.monotonic() + PATIENCE.total_seconds()

    def listed() -> str:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return f"process {shown} of {tasks.size} (counted from 0)"

    def say() -> None:
        if missing and (tasks.rank == 0 or missing == [0]):
            text = f"process {tasks.rank} waits for {listed()}; was each of them started?"
            print(text, file=sys.stderr, flush=True)

    saying = threading.Timer(QUIET.total_seconds(), say)
    saying.daemon = True
    saying.start()
    try:
        store = _store(tasks)
        store.set(f"here/{tasks.rank}", "")
        missing = list(range(tasks.size))
        while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
            if time.monotonic() > until:
                raise LostOthersError(f"{listed()} did not come in {PATIENCE}")
            time.sleep(0.05)
    finally:
        saying.cancel()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("training", store),
        rank=tasks.rank,
        world_size=tasks.size,
        timeout=PATIENCE,
        device_id=device if device.type == "cuda" else None,
    )


def _store(tasks: Tasks) -> dist.Store:
    """Returns the store of the first process, for which the others wait."""
    host, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT")
    # torchrun's agent has a store of its own on that port.
    hosts = tasks.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        return dist.TCPStore(host, port, None, hosts, PATIENCE, wait_for_workers=False)
    except dist.DistError as error:
        if not hosts:
            raise LostOthersError(
                f"process 0 of {tasks.size} did not come to {host}:{port} in {PATIENCE}"
            ) from None
        raise ConfigError(
            f"MASTER_PORT={port}: the processes that train together cannot meet there "
            f"({str(error).splitlines()[0]}); set MASTER_PORT to a free port, the same for all of "
            "them"
        ) from None


def _number(variable: str, otherwise: int | None = None) -> int:
    value = os.environ.get(variable, None if otherwise is None else str(otherwise))
    if value is None or not value.isdecimal():
        raise ConfigError(f"{variable}={value!r} in the environment: expected a number")
    return int(value)


class Ranks:
    """Exchanges a few numbers over a group of its own, on the CPU: nothing waits for a device.

    Every process has to call the same methods in the same order. Alone, a process talks to nobody.

    Args:
        rank: Which of the processes this is; they have met.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._group: Any = None
        if self.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def require_alike(self, own: Mapping[str, Any]) -> None:
        """Checks that every process was started with the same values.

        Args:
            own: This process's values, by the name to show where they differ.

        Raises:
            ConfigError: They differ.
        """
        everyone = self.gather(dict(own))
        for name in sorted({name for values in everyone for name in values}):
            found = [values.get(name, "absent") for values in everyone]
            if any(value != found[0] for value in found):
                listed = ", ".join(f"{value!r} in process {i}" for i, value in enumerate(found))
                raise ConfigError(
                    f"{name} differs between the processes that train together: {listed}. Give all "
                    "of them the same command, hydra.run.dir and files"
                )

    def gather(self, own: Any) -> list[Any]:
        """Returns what each process has given, in the order of their ranks."""
        if self._group is None:
            return [own]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own, group=self._group)
        return found

    def to_first(self, own: Any) -> list[Any]:
        """Returns what each process has given in the first process, nothing in the others."""
        if self._group is None:
            return [own]
        found: list[Any] = [None] * self.size if self.is_first else []
        dist.gather_object(own, found or None, group=self._group)
        return found

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Puts into each tensor its sum over the processes, on the device that it is on."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def largest(self, *own: int) -> list[int]:
        """Returns each number's largest value in any process."""
        if self._group is None:
            return list(own)
        numbers = torch.tensor(own)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._group)
        return numbers.tolist()

    def any(self, own: bool) -> bool:
        """Returns whether something holds in any process."""
        return bool(self.largest(int(own))[0])


def join(device: str) -> tuple[Ranks, str]:
    """Meets the processes that were started together, for what needs no Fabric.

    Args:
        device: What each would compute on by itself; of `cuda`, each takes the GPU of its place on
            the node, where it sees more than one.

    Returns:
        The processes, and the device of this one.

    Raises:
        ConfigError: As `started_tasks` and `meet`.
        LostOthersError: Some have not come.
    """
    tasks = started_tasks()
    if tasks is None:
        return Ranks(), device
    if device == "cuda":
        device = f"cuda:{tasks.local_rank if torch.cuda.device_count() > 1 else 0}"
    publish(tasks)
    meet(tasks, torch.device(device))
    return Ranks(tasks.rank, tasks.size), device


def within_patience(stall: float | None) -> float:
    """Returns a limit on a wait after which the other processes have not given this one up yet."""
    return min(stall or float("inf"), 0.9 * PATIENCE.total_seconds())


def lost_others(error: BaseException) -> bool:
    """Returns whether an error is that of a process whose partners have gone, or are silent."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
