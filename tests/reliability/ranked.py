"""Processes that train together on this machine's CPU, as srun or torchrun would start them."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from faults import Step, each_step, shorten_patience, spoilt
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.errors import SaltError
from salt_plugin.train import run

SMALL = [*TINY, "trainer.max_steps=4"]


class Moment(NamedTuple):
    """When a process computes the loss of a step of a stage, it sends itself a signal.

    Without a signal the loss is infinite.
    """

    rank: int
    stage: str
    step: int
    number: signal.Signals | None


class Ended(NamedTuple):
    """How a process ended, what it said, and what it did: one entry a step."""

    status: int | None
    message: str
    steps: list[dict[str, Any]]
    written: list[str]


def train_together(
    size: int,
    run_dirs: Path | Sequence[Path],
    log: Path,
    overrides: Sequence[str],
    moment: Moment | None = None,
    srun: bool = False,
    cores_of_task: int | None = None,
    of_last: Sequence[str] = (),
    patience: float = 180.0,
) -> list[Ended]:
    """Trains in `size` processes and returns how each of them ended.

    `of_last` are more overrides of the last process. With `srun` they find each other as tasks of
    Slurm do that run on a node each. With `cores_of_task` they are tasks of one node, each bound to
    as many cores.
    """
    log.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["salt_plugin.train", "ranked"])
    processes = []
    for rank in range(size):
        world = {"RANK": rank, "WORLD_SIZE": size}
        if srun or cores_of_task:
            world = {
                "SLURM_PROCID": rank,
                "SLURM_STEP_NUM_TASKS": size,
                "SLURM_STEP_NUM_NODES": size if srun else 1,
                "SLURM_LOCALID": 0 if srun else rank,
            }
        if cores_of_task:
            world["SLURM_CPUS_PER_TASK"] = cores_of_task
        # Other numbers of threads add in another order; Lightning divides a node's cores.
        variables = {
            **world,
            "OMP_NUM_THREADS": 1,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        run_dir = run_dirs if isinstance(run_dirs, Path) else run_dirs[rank]
        own = [*SMALL, *overrides, *(of_last if rank == size - 1 else ())]
        arguments = (variables, run_dir, log / str(rank), own, moment)
        processes.append(context.Process(target=_train, args=arguments))
        processes[-1].start()
    for rank, process in enumerate(processes):
        if moment is not None and (moment.rank, moment.number) == (rank, signal.SIGSTOP):
            process.kill()  # the others, which come before it, have ended
        process.join(patience)
        if process.is_alive():
            states = ", ".join(str(other.exitcode) for other in processes)
            for other in processes:
                other.kill()
                other.join()
            raise TimeoutError(f"process {rank} waits for ever; exit codes: {states}")
    return [_ended(process.exitcode, log / str(rank)) for rank, process in enumerate(processes)]


def _ended(status: int | None, log: Path) -> Ended:
    texts = {
        name: file.read_text() if (file := log.with_suffix(f".{name}")).is_file() else ""
        for name in ("message", "steps", "written")
    }
    steps = [json.loads(line) for line in texts["steps"].splitlines()]
    return Ended(status, texts["message"], steps, texts["written"].splitlines())


def _train(
    variables: Mapping[str, Any],
    run_dir: Path,
    log: Path,
    overrides: Sequence[str],
    moment: Moment | None,
) -> None:
    os.environ.update({name: str(value) for name, value in variables.items()})
    faulthandler.enable()
    faulthandler.dump_traceback_later(60)  # of one that waits for ever
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a process alone
    if moment is not None and moment.number is signal.SIGSTOP:
        shorten_patience(3)
    here = moment if moment is not None and moment.rank == int(log.name) else None
    spoil = {here.step + 1} if here is not None and here.number is None else set()
    _watch_files(run_dir, log)
    cfg = compose(list(overrides))
    try:
        with (
            each_step(partial(_signal, here), partial(_note, log)),
            spoilt(spoil, stage=here.stage if here else None),
        ):
            run(cfg, run_dir)
    except SaltError as error:
        log.with_suffix(".message").write_text(str(error))
        sys.exit(getattr(error, "exit_status", 1))


def _signal(here: Moment | None, now: Step) -> None:
    if here is not None and here.number is not None and now.is_at(here.step + 1, here.stage):
        signal.raise_signal(here.number)


def _note(log: Path, now: Step, loss: torch.Tensor) -> None:
    batch = now.batch
    row = {
        "stage": now.stage,
        "step": now.number - 1,
        "loss": float(loss),
        "clips": [hashlib.sha256(clip.numpy().tobytes()).hexdigest() for clip in batch.clips],
        "skipped": [path for path, _ in batch.skipped],
        "workers": len(multiprocessing.active_children()),
    }
    with log.with_suffix(".steps").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _watch_files(run_dir: Path, log: Path) -> None:
    """Lists the files under the run directory that this process opens for writing, or renames."""
    busy = [False]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if busy[0] or event not in ("open", "os.rename", "os.remove"):
            return
        path = str(arguments[0])
        reads = event == "open" and not any(c in str(arguments[1] or "r") for c in "wax+")
        if path.startswith(str(run_dir)) and not reads:
            busy[0] = True
            with log.with_suffix(".written").open("a") as file:
                file.write(f"{path}\n")
            busy[0] = False

    sys.addaudithook(hook)
