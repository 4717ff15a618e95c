"""How a process finds the others that it trains with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from salt_plugin.config import clips_of_rank, compose, load_config
from salt_plugin.errors import ConfigError
from salt_plugin.stages.world import Tasks, publish, sharing_cores, started_tasks
from salt_plugin.train import run

TASK = {
    "SLURM_JOB_ID": "4012",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a trace of srun or torchrun."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "MASTER_"))
        and name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    }
    monkeypatch.setattr(os, "environ", kept)


def test_a_process_alone_has_no_others() -> None:
    assert started_tasks() is None


def test_torchrun_tells_the_place() -> None:
    os.environ.update(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4")
    assert started_tasks() == Tasks(size=8, rank=5, local_rank=1, nodes=2)


def test_two_variables_are_enough_on_one_machine() -> None:
    os.environ.update(RANK="1", WORLD_SIZE="2")
    assert started_tasks() == Tasks(size=2, rank=1, local_rank=1, nodes=1)


def test_srun_tells_the_place_and_is_then_like_torchrun() -> None:
    os.environ.update(TASK)
    tasks = started_tasks()
    assert tasks == Tasks(size=4, rank=3, local_rank=1, nodes=2)
    publish(tasks)
    assert os.environ["MASTER_ADDR"] == "gpu07"
    assert os.environ["MASTER_PORT"] == "19012"
    assert started_tasks() == tasks


def test_what_the_user_names_as_meeting_point_stays() -> None:
    os.environ.update(TASK, MASTER_ADDR="10.0.0.1", MASTER_PORT="1234")
    tasks = started_tasks()
    assert tasks is not None
    publish(tasks)
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.1", "1234")


def test_a_job_script_without_srun_is_one_process() -> None:
    os.environ.update(SLURM_JOB_ID="1", SLURM_NTASKS="4", SLURM_PROCID="0", SLURM_LOCALID="0")
    assert started_tasks() is None


def test_a_single_task_is_alone() -> None:
    os.environ.update(TASK, SLURM_STEP_NUM_TASKS="1", SLURM_STEP_NUM_NODES="1", SLURM_PROCID="0")
    assert started_tasks() is None


def test_tasks_that_srun_binds_share_no_cores() -> None:
    tasks = Tasks(size=8, rank=0, local_rank=0, nodes=2)
    assert sharing_cores(tasks) == 4
    os.environ.update(TASK, SLURM_CPUS_PER_TASK="6")
    assert sharing_cores(tasks) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "process 2 of 2 cannot be"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK='first' in the environment: expected a num"),
        ({**TASK, "SLURM_STEP_NUM_TASKS": "5"}, "5 processes on 2 nodes: expected as many on each"),
    ],
)
def test_contradictions_are_named(changes: dict[str, str], message: str) -> None:
    os.environ.update(changes)
    with pytest.raises(ConfigError, match=message):
        started_tasks()


def test_a_global_batch_is_split_among_the_processes() -> None:
    config = load_config(compose(["method=salt", "loader.batch_size=6"]))
    assert [clips_of_rank(config, size) for size in (1, 4)] == [6, 6]
    config.method.global_batch_size = 24
    assert [clips_of_rank(config, size) for size in (1, 4)] == [24, 6]


def test_a_global_batch_that_cannot_be_split_is_refused(tiny_videos: Path, tmp_path: Path) -> None:
    os.environ.update(RANK="0", WORLD_SIZE="3", LOCAL_RANK="0")
    overrides = ["method=salt", f"input_dir={tiny_videos}", "method.global_batch_size=8"]
    with pytest.raises(ConfigError, match="global_batch_size=8: expected a multiple of the 3 proc"):
        run(compose(overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()
