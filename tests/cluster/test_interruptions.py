"""Jobs that Slurm stops, moves, queues again or loses: they go on where they were."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from salt_plugin.studies.attempts import STARTED, ElementDirectory
from salt_plugin.studies.states import Row
from tests.cluster.bench import ONE_STAGE, Bench

pytestmark = pytest.mark.cluster

STEPS = 12


def started(bench: Bench, steps: int = STEPS, **profile: object) -> Row:
    """Returns the one element of a study once it has made a step."""
    bench.pipeline.write_text(ONE_STAGE % (steps, "1"))
    bench.profile_keys(**profile)
    bench.step_seconds(0.5)
    bench.launch()
    return bench.until(lambda rows: (rows["run/s1"].step or 0) > 0)["run/s1"]


def assert_complete(bench: Bench, restarts: int, steps: int = STEPS) -> None:
    """Every step was made once, by so many attempts."""
    bench.step_seconds(0.1)
    row = bench.ended()["run/s1"]
    assert (row.state, row.restarts) == ("finished", restarts), row
    assert bench.losses("run/s1") == [1 + 1 / n for n in range(1, steps + 1)]


@pytest.mark.parametrize("signals", [["USR2"], ["TERM"], ["TERM", "USR2"]], ids="-".join)
def test_a_signal_saves_and_queues_again(bench: Bench, signals: list[str]) -> None:
    row = started(bench)
    for name in signals:
        bench.cluster.run("scancel", f"--signal={name}", str(row.job))
    assert_complete(bench, restarts=1)
    log = (bench.study.root / "run" / "s1" / "log.txt").read_text()
    told = re.findall(r"# [\d-]+ [\d:]+ process 0 on \w+, job (\w+), restart (\d)(.*)", log)
    why = f", the last attempt ended: SIG{signals[0]} was received"
    assert told == [(row.job, "0", ""), (row.job, "1", why)]


def test_requeue_goes_on_and_what_is_finished_does_nothing(bench: Bench) -> None:
    row = started(bench)
    bench.cluster.run("scontrol", "requeue", str(row.job))
    assert_complete(bench, restarts=1)
    bench.cluster.run("scontrol", "requeue", str(row.job))
    bench.until(lambda _: bench.cluster.run("squeue", "-h") == "")
    assert_complete(bench, restarts=1)


def test_a_node_that_fails(bench: Bench) -> None:
    started(bench, sbatch={"nodelist": "localhost"})
    node = ("scontrol", "update", "nodename=localhost")
    bench.cluster.run(*node, "state=down", "reason=test")
    bench.until(lambda rows: rows["run/s1"].state == "pending")
    bench.cluster.run(*node, "state=resume", check=False)  # it may be back by itself
    assert_complete(bench, restarts=1)


def test_preemption_by_a_higher_partition(bench: Bench) -> None:
    row = started(bench, cpus_per_task=4, sbatch={"nodelist": "localhost"})
    options = ["--partition=high", "--cpus-per-task=4", "--mem=100M", "--nodelist=localhost"]
    bench.cluster.run("sbatch", *options, "--output=/dev/null", "--wrap=sleep 2")
    bench.until(lambda rows: rows["run/s1"].state != "running")
    assert row.job is not None
    assert_complete(bench, restarts=1)


@pytest.mark.slow
def test_time_limit(bench: Bench) -> None:
    started(bench, steps=100, time="0:01:00", signal_delay_s=30)
    bench.until(lambda rows: rows["run/s1"].restarts == 1)
    assert_complete(bench, restarts=1, steps=100)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_task_of_two_nodes(bench: Bench, rank: int) -> None:
    started(bench, nodes=2)
    pid = int((bench.study.root / "run" / "s1" / f"pid-{rank}").read_text())
    os.kill(pid, signal.SIGKILL)
    bench.until(lambda rows: rows["run/s1"].restarts >= 1)
    bench.step_seconds(0.1)
    row = bench.ended()["run/s1"]
    assert row.state == "finished"
    assert bench.losses("run/s1") == [1 + 1 / n for n in range(1, STEPS + 1)]


def test_a_failure_of_one_task_is_no_interruption_of_the_others(bench: Bench) -> None:
    bench.fail("run/s1:1")
    bench.pipeline.write_text(ONE_STAGE % (STEPS, "1"))
    bench.profile_keys(nodes=2)
    bench.step_seconds(0.5)
    bench.launch()
    row = bench.ended()["run/s1"]
    assert (row.state, row.restarts, row.reason) == ("failed", 0, "error: the sky has fallen")


def test_out_of_memory_it_goes_on_and_at_last_says_peak_and_limit(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (2, "1"))
    bench.hungry("run/s1")
    bench.launch()
    files, job = ElementDirectory(bench.study.root / "run" / "s1"), bench.rows()["run/s1"].job
    files.root.mkdir(parents=True, exist_ok=True)
    for _ in range(3):  # the job makes the fourth and the fifth
        files.note(STARTED, job=job, restart=0, saved=0)
    told = "before: all its processes were killed; out of memory"
    bench.until(lambda rows: told in rows["run/s1"].reason)
    row = bench.ended()["run/s1"]
    assert (row.state, row.restarts) == ("failed", 4), row
    found = re.fullmatch(
        r"interrupted 5 times in a row without getting past step 0, at last: all its processes "
        r"were killed; out of memory: peak ([\d.]+)M, limit 300M",
        row.reason,
    )
    assert found, row.reason
    assert float(found[1]) > 300
    assert files.log().read_text().endswith(f"failed: {row.reason}\n")
    bench.hungry()
    bench.salt("retry", str(bench.study.root))
    assert_complete(bench, restarts=5, steps=2)


def test_a_line_of_setup_that_fails_stops_its_job_alone_and_is_named(
    bench: Bench, tmp_path: Path
) -> None:
    sourced = tmp_path / "it's sourced"
    sourced.write_text("false\nexport SEEN='by all'\n")
    ifs = "if [ $SLURM_ARRAY_TASK_ID != 0 ]; then\n  nosuch 'cuda \"12\"'\nfi\ntrue"
    bench.pipeline.write_text(ONE_STAGE % (2, "1,2"))
    bench.profile_keys(setup=[f'source "{sourced}"', "echo seen $SEEN; [ -d / ]", ifs])
    bench.launch()
    rows = bench.ended()
    assert (rows["run/s1"].state, rows["run/s2"].state) == ("finished", "failed")
    named = "if [ $SLURM_ARRAY_TASK_ID != 0 ]; then; nosuch 'cuda \"12\"'; fi; true"
    assert rows["run/s2"].reason == f"setup line failed (status 127): {named}"
    for row in rows.values():
        last = "step 2" if row.state == "finished" else f"failed: {row.reason}"
        lines = Path(str(row.log)).read_text().splitlines()
        assert re.fullmatch(rf"# .* setup on \w+, job {row.job}, restart 0", lines[0])
        assert lines[1] == "seen by all"
        assert lines[-1] == last
    assert "nosuch: command not found" in "".join(lines)
