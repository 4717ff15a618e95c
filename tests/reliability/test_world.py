"""How a process finds the others that it trains with."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch.distributed
from faults import shorten_patience
from lightning_utilities.core.rank_zero import rank_zero_only
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.errors import ConfigError, LostOthersError
from salt_plugin.train import run
from salt_plugin.training import world

TASK = {
    "SLURM_JOB_ID": "4012",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
KEYS = ["method=pixel_teacher", *TINY, "trainer.max_steps=1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One without a trace of srun or torchrun, also after the test."""
    # What a process beside the first says less is of the whole process, too.
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)
    log = logging.getLogger("salt_plugin")
    monkeypatch.setattr(log, "level", log.level)
    with mock.patch.dict(os.environ):  # what a run sets is undone, too
        for name in [*os.environ]:
            if name in TORCHRUN or name.startswith("SLURM_"):
                del os.environ[name]
        yield


class Joining(BaseException):
    """Takes the place of waiting for the others."""


@pytest.fixture
def joined(tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains under variables up to where it would wait, and returns those that torch reads."""

    def join(**variables: str) -> dict[str, str]:
        def wait(*_: Any, **__: Any) -> None:
            raise Joining

        os.environ.update(variables)
        monkeypatch.setattr(torch.distributed, "TCPStore", wait)
        with pytest.raises(Joining):
            run(compose([*KEYS, f"input_dir={tiny_videos}"]), tmp_path / "run")
        return {name: os.environ[name] for name in TORCHRUN}

    return join


def test_torchrun_tells_the_place(joined: Any) -> None:
    given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    found = joined(**given, MASTER_ADDR="10.0.0.1", MASTER_PORT="1234")
    assert found == {**given, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}


def test_two_variables_are_enough_on_one_machine(joined: Any) -> None:
    found = joined(RANK="1", WORLD_SIZE="2")
    assert (found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == ("1", "2")
    assert found["MASTER_ADDR"] == "127.0.0.1"


def test_srun_tells_the_place_and_is_then_like_torchrun(joined: Any) -> None:
    found = joined(**TASK)
    assert found == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": found["MASTER_PORT"],
    }


def test_steps_of_jobs_on_one_node_meet_on_other_ports(joined: Any) -> None:
    ports = []
    for job, step in ((100, 1), (101, 0), (99, 2)):
        ports.append(joined(**TASK | {"SLURM_JOB_ID": f"{job}", "SLURM_STEP_ID": f"{step}"}))
        del os.environ["MASTER_PORT"]
        del os.environ["RANK"]
    found = {int(variables["MASTER_PORT"]) for variables in ports}
    assert len(found) == 3
    assert all(1024 < port < 32768 for port in found)


def test_a_port_in_use_is_an_error_and_no_lost_partner(tiny_videos: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        os.environ.update(RANK="0", WORLD_SIZE="2", MASTER_PORT=f"{port}")
        with pytest.raises(ConfigError, match=f"MASTER_PORT={port}: .*set MASTER_PORT to a free"):
            run(compose([*KEYS, f"input_dir={tiny_videos}"]), tmp_path / "run")


@pytest.mark.parametrize(("rank", "missing"), [(0, 1), (1, 0)])
def test_who_waits_says_for_whom(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: int,
    missing: int,
) -> None:
    for name in ("PATIENCE", "QUIET"):
        monkeypatch.setattr(world, name, getattr(world, name))  # so that it is undone
    shorten_patience(2, quiet=0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK=f"{rank}", WORLD_SIZE="2", MASTER_PORT=f"{port}")
    with pytest.raises(LostOthersError, match=f"process {missing} of 2"):
        run(compose([*KEYS, f"input_dir={tiny_videos}"]), tmp_path / "run")
    told = f"process {rank} waits for process {missing} of 2 (counted from 0)"
    assert capsys.readouterr().err.count(told) == 1


def test_what_the_user_names_as_meeting_point_stays(joined: Any) -> None:
    found = joined(**TASK, MASTER_ADDR="10.0.0.1", MASTER_PORT="1234")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.1", "1234")


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"},
        {"RANK": "0", "WORLD_SIZE": "1"},
    ],
    ids=["a job script without srun", "a single task", "torchrun of one"],
)
def test_what_is_started_alone_trains_alone(
    tiny_videos: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    os.environ.update(variables)
    summary = run(compose([*KEYS, f"input_dir={tiny_videos}"]), tmp_path / "run")
    assert summary["stages"][0]["steps"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "process 2 of 2 cannot be"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK='first' in the environment: expected a num"),
        ({**TASK, "SLURM_STEP_NUM_TASKS": "5"}, "5 processes on 2 nodes: expected as many on each"),
    ],
)
def test_contradictions_are_named(
    tiny_videos: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    os.environ.update(changes)
    with pytest.raises(ConfigError, match=message):
        run(compose([*KEYS, f"input_dir={tiny_videos}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_global_batch_smaller_than_the_devices_is_refused(
    tiny_videos: Path, tmp_path: Path
) -> None:
    os.environ.update(RANK="0", WORLD_SIZE="3", LOCAL_RANK="0")
    overrides = ["method=salt", f"input_dir={tiny_videos}", "method.global_batch_size=2"]
    with pytest.raises(
        ConfigError, match="global_batch_size=2: expected at least one clip for each of the 3"
    ):
        run(compose(overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()
