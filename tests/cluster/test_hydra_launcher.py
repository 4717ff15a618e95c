"""Lightly's command under Hydra's own launcher for Slurm."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import SMALL

from tests.cluster.bench import Bench

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

COMMAND = Path(sys.executable).parent / "lightly-ssl-train"
SECONDS = 600.0
STEPS = 150


@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None,
    reason="needs hydra-submitit-launcher: pip install 'salt-plugin[slurm]'",
)
def test_a_sweep_is_two_runs_of_which_the_interrupted_one_goes_on(
    bench: Bench, tiny_videos: Path, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=2"]
    run = ["method=pixel_teacher", f"input_dir={tiny_videos}", *SMALL, f"trainer.max_steps={STEPS}"]
    here = [f"hydra.sweep.dir={sweep}", "seed=1,2", "trainer.gpus=0", "method.probe=null"]
    process = subprocess.Popen(
        [COMMAND, "-m", *run, *launcher, *here],
        env=bench.cluster.environment | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while len(steps_of(sweep / "0")) < 10:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.3)
        jobs = bench.cluster.run("squeue", "-h", "-r", "-o", "%i").split()
        (first,) = (job for job in jobs if job.endswith("_0"))
        bench.cluster.run("scancel", "--signal=USR2", first)
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, said
    logs = [file.read_text() for file in sweep.glob(".submitit/*/*_log.err")]
    assert sum("goes on" in log for log in logs) == 1
    for number in "01":
        assert (sweep / number / "summary.json").is_file()
        assert steps_of(sweep / number) == list(range(1, STEPS + 1))
    losses = [(sweep / number / "teacher" / "metrics.csv").read_text() for number in "01"]
    assert losses[0] != losses[1]


def steps_of(run_dir: Path) -> list[int]:
    file = run_dir / "teacher" / "metrics.csv"
    if not file.is_file():
        return []
    with file.open() as rows:
        return [int(row["step"]) for row in csv.DictReader(rows) if row["step"]]
