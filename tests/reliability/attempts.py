"""A run in processes of its own, which die as told and are started again until it is done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from deaths import Death, armed, damage

from salt_plugin.config import compose
from salt_plugin.errors import Interrupted
from salt_plugin.train import run

PATIENCE = 120.0


class Toll(NamedTuple):
    """What became of a run's files on the way: how often each was found.

    Attributes:
        torn: A checkpoint of which a part is written.
        damaged: A last checkpoint that was then damaged.
        resumed: A checkpoint to go on from.
    """

    torn: int
    damaged: int
    resumed: int


def train(run_dir: Path, overrides: Sequence[str], ranks: int, death: Death | None = None) -> None:
    """Trains until the end, or until it has died as told.

    Raises:
        AssertionError: It has ended in another way.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["salt_plugin.train", "attempts"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_train, args=(run_dir, overrides, (rank, ranks, port), death))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    if death is not None and death.number is signal.SIGKILL:
        # Whoever started them ends the others, as srun and torchrun do.
        wait([processes[death.rank].sentinel], PATIENCE)
        for process in processes:
            if process is not processes[death.rank]:
                process.kill()
    for process in processes:
        process.join(PATIENCE)
    expected = 0 if death is None else -9 if death.number is signal.SIGKILL else os.EX_TEMPFAIL
    found = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert found == [expected] * ranks, (death, found)


def train_through(
    run_dir: Path, overrides: Sequence[str], deaths: Sequence[Death], ranks: int = 1
) -> Toll:
    """Trains, and begins again after each death with the same command, until it is done."""
    torn = damaged = resumed = 0
    for death in deaths:
        train(run_dir, overrides, ranks, death)
        last = run_dir / death.stage / "checkpoints" / "last.ckpt"
        torn += death.place == "checkpoint" and last.with_suffix(".tmp").is_file()
        before = last.with_name("previous.ckpt")
        resumed += last.is_file() or before.is_file()
        if death.damage and last.is_file() and before.is_file():
            damage(last, death)
            damaged += 1
    train(run_dir, overrides, ranks)
    return Toll(torn, damaged, resumed)


def _train(
    run_dir: Path, overrides: Sequence[str], world: tuple[int, int, int], death: Death | None
) -> None:
    rank, ranks, port = world
    if ranks > 1:
        variables: dict[str, Any] = {
            "RANK": rank,
            "WORLD_SIZE": ranks,
            "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a process alone
    mine = death if death is not None and death.rank == rank else None
    try:
        with armed(mine, run_dir):
            run(compose(list(overrides)), run_dir)
    except Interrupted as stop:
        sys.exit(stop.exit_status)
