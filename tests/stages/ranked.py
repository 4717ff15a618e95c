"""Processes that train together on this machine's CPU, as srun or torchrun would start them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from small_run import TINY

from salt_plugin.callbacks import ranks
from salt_plugin.config import compose
from salt_plugin.errors import SaltError
from salt_plugin.masks import MaskGenerator, MaskSet
from salt_plugin.masks.types import split_by_mask
from salt_plugin.methods import SALT, PixelTeacher
from salt_plugin.stages import trainer
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


class SameMasks(MaskGenerator):
    """Hides the last frame of every clip: masks that do not depend on how a batch is split."""

    def __call__(
        self, batch_size: int, grid: tuple[int, int, int], generator: torch.Generator
    ) -> list[MaskSet]:
        frames, height, width = grid
        hidden_n = torch.arange(frames).repeat_interleave(height * width) == frames - 1
        return [split_by_mask(hidden_n.expand(batch_size, -1))]


def train_together(
    size: int,
    run_dirs: Path | Sequence[Path],
    log: Path,
    overrides: Sequence[str],
    moment: Moment | None = None,
    same_masks: bool = False,
    srun: bool = False,
    patience: float = 180.0,
) -> list[Ended]:
    """Trains in `size` processes and returns how each of them ended.

    With `srun` they find each other as tasks of Slurm do that run on a node each.
    """
    log.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["salt_plugin.train", "ranked"])
    processes = []
    for rank in range(size):
        world = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}
        if srun:
            world = {
                "SLURM_PROCID": rank,
                "SLURM_STEP_NUM_TASKS": size,
                "SLURM_STEP_NUM_NODES": size,
                "SLURM_LOCALID": 0,
            }
        # Other numbers of threads add in another order; Lightning divides a node's cores.
        variables = {
            **world,
            "OMP_NUM_THREADS": 1,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        run_dir = run_dirs if isinstance(run_dirs, Path) else run_dirs[rank]
        arguments = (variables, run_dir, log / str(rank), [*SMALL, *overrides], moment, same_masks)
        processes.append(context.Process(target=_train, args=arguments))
        processes[-1].start()
    for rank, process in enumerate(processes):
        if moment is not None and (moment.rank, moment.number) == (rank, signal.SIGSTOP):
            process.kill()  # the others, which come before it, have ended
        process.join(patience)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError("a process waits for ever")
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
    same_masks: bool,
) -> None:
    os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    if moment is not None and moment.number is signal.SIGSTOP:
        ranks.PATIENCE = trainer.PATIENCE = timedelta(seconds=3)
    for stage, cls in (("teacher", PixelTeacher), ("student", SALT)):
        _watch(cls, stage, int(log.name), log, moment)
    _watch_files(run_dir, log)
    cfg = compose(list(overrides))
    if same_masks:
        cfg.method.masks = {"_target_": "ranked.SameMasks"}
    try:
        run(cfg, run_dir)
    except SaltError as error:
        log.with_suffix(".message").write_text(str(error))
        sys.exit(getattr(error, "exit_status", 1))


def _watch(cls: Any, stage: str, rank: int, log: Path, moment: Moment | None) -> None:
    original = cls.forward

    def watched(self: Any, batch: Any) -> torch.Tensor:
        here = moment if moment is not None and moment[:3] == (rank, stage, batch.step) else None
        if here is not None and here.number is not None:
            signal.raise_signal(here.number)
        loss = original(self, batch)
        if here is not None and here.number is None:
            loss = loss + torch.inf
        clips = [hashlib.sha256(clip.numpy().tobytes()).hexdigest() for clip in batch.clips]
        row = {"stage": stage, "step": batch.step, "loss": float(loss), "clips": clips}
        with log.with_suffix(".steps").open("a") as file:
            file.write(json.dumps(row) + "\n")
        return loss

    cls.forward = watched


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
