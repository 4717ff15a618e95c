"""The real `salt train` on a real Slurm: disturbed in every way, it computes the same."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import outcome
import pytest

from salt_plugin.studies.states import Row
from salt_plugin.studies.study import Study
from tests.cluster.bench import Bench

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.release]

SECONDS = 900.0

PIPELINE = """\
name: real
overrides:
  - input_dir={videos}
  - method.encoder=vit_nano
  - method.clip.size=64
  - method.clip.frames=8
  - method.clip.step=1
  - method.model.predictor.dim=48
  - method.model.predictor.depth=1
  - method.model.predictor.num_heads=2
  - method.probe=null
  - method.global_batch_size=4
  - method.checkpoint.every_n_steps=10
  - loader.num_workers=0
  - trainer.precision=32
  - trainer.gpus=0
  - trainer.max_steps=120
stages:
  teacher: {{method: pixel_teacher, overrides: [trainer.max_steps=20]}}
  limited:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={{teacher}}"]
    resources: {{time: '0:02:00', signal_delay_s: 30}}
  preempted:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={{teacher}}"]
    resources: {{cpus_per_task: 4, sbatch: {{nodelist: localhost}}}}
  student:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={{teacher}}", loader.num_workers=1]
    sweep: ["seed=1,2"]
  pair:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={{teacher}}"]
    sweep: ["method.checkpoint.every_n_steps=10,11"]
    resources: {{nodes: 2}}
  report:
    command: report
    after: [teacher, student, preempted, limited, pair]
"""
ALONE = ["student/s1", "student/s2", "preempted/all", "limited/all"]
LEFT_ALONE, KILLED = "pair/every_n_steps10", "pair/every_n_steps11"


def test_a_disturbed_study_computes_what_one_on_this_machine_does(
    bench: Bench, tiny_videos: Path
) -> None:
    bench.pipeline.write_text(PIPELINE.format(videos=tiny_videos))
    bench.profile_keys(python=None, mem="2500M", cpus_per_task=2)
    bench.launch(OMP_NUM_THREADS="1")
    disturb(bench)
    bench.until(lambda rows: all(row.state == "finished" for row in rows.values()), SECONDS)

    here = Study(bench.study.root.with_name("here"))
    given = ["cluster=local", "cluster.array_parallelism=2", "--out", str(here.root)]
    bench.salt("launch", str(bench.pipeline), *given, seconds=SECONDS, OMP_NUM_THREADS="1")
    for element in ["teacher/all", *ALONE]:
        assert computed(bench.study, element) == computed(here, element), element
    assert computed(bench.study, KILLED) == computed(bench.study, LEFT_ALONE)
    results = [table(study) for study in (bench.study, here)]
    assert results[0] == results[1]
    assert {row["status"] for row in results[0]} == {"finished"}


def disturb(bench: Bench) -> None:
    """Interrupts each student but one while it trains, each in another way."""
    deadline = time.monotonic() + SECONDS
    left = {*ALONE, KILLED}
    still: set[int] = set()
    while left or still:
        assert time.monotonic() < deadline, f"never at work, or not told: {left}\n{bench.rows()}"
        rows = bench.rows()
        for element in sorted(left):
            if rows[element].state == "running" and (rows[element].step or 0) > 10:
                still |= interrupt(bench, rows[element])
                left.remove(element)
        for process in [one for one in still if is_told(one)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
            still.remove(process)
        time.sleep(0.3)


def interrupt(bench: Bench, row: Row) -> set[int]:
    """Returns processes that are to stand still until Slurm tells them to stop."""
    job, folder = str(row.job), bench.study.root / row.id
    if row.id == "student/s1":
        os.kill(loader_worker(training_process(folder)), signal.SIGKILL)
    elif row.id == "student/s2":
        bench.cluster.run("scontrol", "requeue", job)
    elif row.id == "preempted/all":
        options = ["--partition=high", "--cpus-per-task=4", "--mem=100M", "--nodelist=localhost"]
        bench.cluster.run("sbatch", *options, "--output=/dev/null", "--wrap=sleep 2")
    elif row.id == "limited/all":
        process = training_process(folder)
        os.kill(process, signal.SIGSTOP)
        return {process}
    else:
        os.kill(training_process(folder, rank=1), signal.SIGKILL)
    return set()


def is_told(process: int) -> bool:
    """Whether SIGUSR2 waits for a process that stands still, or Slurm has let it go on and end."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return True
    waiting = next(line for line in lines if line.startswith("ShdPnd")).split()[1]
    return bool(int(waiting, 16) & 1 << signal.SIGUSR2 - 1)


def training_process(run_dir: Path, rank: int = 0) -> int:
    """Returns the process that is a rank of the training in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode().split("\0")
            environment = (process / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        named = any("hydra.run.dir=" in one and str(run_dir) in one for one in command)
        if named and f"SLURM_PROCID={rank}" in environment and "salt_plugin.cli" in command:
            return int(process.name)
    raise AssertionError(f"no process trains in {run_dir}")


def loader_worker(process: int) -> int:
    """Returns the one process that reads videos for a training process."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    (worker,) = (
        int(child)
        for child in children
        if b"salt_plugin.cli" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return worker


def computed(study: Study, element: str) -> dict[str, Any]:
    """Returns what came out of an element: fingerprints of weights, the ledger, all rows."""
    root = study.root / element / ("teacher" if element.startswith("teacher") else "student")
    card = json.loads((root / "encoder.json").read_text())
    ledger = json.loads((root / "compute.json").read_text())
    rows = outcome.rows(root)
    assert [int(row["step"]) for row in rows] == list(range(1, ledger["steps"] + 1))
    del ledger["seconds"]
    return {"weights": card["fingerprint"], "ledger": ledger, "rows": rows}


def table(study: Study) -> list[dict[str, str]]:
    """Returns `results.csv`; of `pair`, masks differ with the number of tasks."""
    with (study.root / "report" / "all" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    masked = {"loss": "", "flops": ""}
    return [row | masked if row["stage"] == "pair" else row for row in rows]
