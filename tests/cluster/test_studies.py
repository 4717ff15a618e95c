"""Studies on a real Slurm: dependencies, failures, cancelling, retrying."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from salt_plugin.studies.states import Row
from salt_plugin.studies.study import Study
from tests.cluster.bench import ONE_STAGE, Bench

pytestmark = pytest.mark.cluster

STUDENTS = {f"student/s{t}-s{s}" for t in (1, 2) for s in (1, 2)}


def in_state(rows: dict[str, Row], state: str) -> set[str]:
    return {row.id for row in rows.values() if row.state == state}


def test_four_students_on_two_teachers_with_probes_and_a_report(bench: Bench) -> None:
    bench.step_seconds(0.4)
    bench.launch()
    running = bench.until(lambda rows: (rows["teacher/s2"].step or 0) > 0)
    assert running["teacher/s2"].state == "running"
    assert running["teacher/s2"].loss is not None
    assert running["student/s2-s1"].reason == "Dependency"
    rows = bench.ended()
    assert in_state(rows, "finished") == rows.keys()
    assert rows.keys() >= STUDENTS
    assert len(rows) == 2 + 4 + 4 + 1
    assert all(rows[student].step == 4 for student in STUDENTS)
    assert sum(row.restarts for row in rows.values()) == 0
    with (bench.study.root / "report" / "all" / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["status"] for row in found] == ["finished"] * 10
    assert {row["knn"] for row in found if row["stage"] == "probe"} == {"0.5"}
    submitted = bench.study.submissions()
    assert "11 of 11 elements are finished" in bench.launch()
    assert bench.study.submissions() == submitted


def test_a_failed_teacher_takes_exactly_its_dependents_and_retry_completes(bench: Bench) -> None:
    bench.fail("teacher/s1")
    bench.launch()
    rows = bench.ended()
    assert in_state(rows, "failed") == {"teacher/s1"}
    assert rows["teacher/s1"].reason == "error: the sky has fallen"
    of_first = {f"{stage}/s1-s{s}" for stage in ("student", "probe") for s in (1, 2)}
    assert in_state(rows, "cancelled") == of_first
    assert rows["student/s1-s2"].reason == "needs teacher/s1, which is failed"
    assert rows["probe/s1-s2"].reason == "needs student/s1-s2, which is cancelled"
    assert rows["report/all"].state == "finished"
    bench.fail()
    before = len(bench.study.submissions())
    bench.salt("retry", str(bench.study.root), "--failed")
    again = {one for job in bench.study.submissions()[before:] for one in job.elements}
    assert again == {"teacher/s1", "report/all"} | of_first
    rows = bench.ended()
    assert in_state(rows, "finished") == rows.keys()


def test_a_failed_student_takes_its_probe_alone(bench: Bench) -> None:
    bench.fail("student/s2-s1")
    bench.launch()
    rows = bench.ended()
    assert in_state(rows, "failed") == {"student/s2-s1"}
    assert in_state(rows, "cancelled") == {"probe/s2-s1"}
    table = (bench.study.root / "report" / "all" / "table.md").read_text()
    assert table.count("| missing |") == 2
    bench.fail()
    bench.salt("retry", str(bench.study.root))
    rows = bench.ended()
    assert in_state(rows, "finished") == rows.keys()
    table = (bench.study.root / "report" / "all" / "table.md").read_text()
    assert "missing" not in table


def test_cancel_ends_what_waits_and_runs_and_retry_goes_on(bench: Bench) -> None:
    bench.step_seconds(1)
    bench.launch()
    bench.until(lambda rows: (rows["teacher/s1"].step or 0) > 0)
    assert "cancelled 11 elements" in bench.salt("cancel", str(bench.study.root))
    rows = bench.ended()
    assert in_state(rows, "cancelled") == rows.keys()
    assert rows["report/all"].reason == "by scancel"
    assert "nothing of it waits or runs" in bench.salt("cancel", str(bench.study.root))
    assert "0 of 11 elements are finished" in bench.salt("retry", str(bench.study.root), "--failed")
    steps = rows["teacher/s1"].step
    assert steps is not None
    assert 0 < steps < 4
    bench.step_seconds(0.05)
    bench.salt("retry", str(bench.study.root))
    rows = bench.ended()
    assert in_state(rows, "finished") == rows.keys()
    assert bench.losses("teacher/s1") == [1 + 1 / n for n in range(1, 5)]


def test_another_study_in_the_same_folder_is_refused(bench: Bench) -> None:
    bench.launch("cluster.sbatch.hold=true")
    said = bench.launch("overrides=[preset=demo,trainer.max_steps=5]", status=1)
    assert "holds another study: trainer.max_steps was 4 and is now 5: teacher/s1" in said
    assert "11 of" not in said
    here = bench.salt("launch", str(bench.pipeline), "--out", str(bench.study.root), status=1)
    assert "jobs of this study wait or run on Slurm, and cluster=local would run it here" in here
    bench.salt("cancel", str(bench.study.root))


@pytest.mark.slow
def test_a_minute_without_the_controller_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.pipeline.write_text(ONE_STAGE % (12, "1"))
    bench.step_seconds(0.5)
    bench.launch()
    bench.until(lambda rows: (rows["run/s1"].step or 0) > 0)
    other = Study(tmp_path / "other")
    launch = ("launch", str(bench.pipeline), f"cluster={bench.profile}", "--out", str(other.root))
    bench.cluster.end_controller()
    with ThreadPoolExecutor() as pool:
        try:
            os.kill(worker_of(bench.study.root / "run" / "s1"), signal.SIGUSR2)
            bench.step_seconds(0.05)
            waiting = [pool.submit(bench.salt, *launch)]
            waiting += [pool.submit(bench.salt, "status", str(bench.study.root))]
            time.sleep(60)
        finally:
            bench.cluster.start_controller()
        for one in waiting:
            assert "Slurm's controller does not answer" in one.result()
    assert "1 running" in waiting[1].result() or "1 pending" in waiting[1].result()
    row = bench.ended()["run/s1"]
    assert (row.state, row.restarts) == ("finished", 1), row
    assert bench.losses("run/s1") == [1 + 1 / n for n in range(1, 13)]
    assert len(other.submissions()) == 1


def worker_of(folder: Path) -> int:
    """Returns the process that has started the command of an element."""
    pid = (folder / "pid-0").read_text()
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_job_is_not_submitted_twice_where_the_answer_was_lost(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (2, "1,2"))
    folder = bench.pipeline.parent / "bin"
    folder.mkdir()
    real = shutil.which("sbatch")
    (folder / "sbatch").write_text(
        f"""#!/bin/sh
        case "$*" in *--test-only*) exec {real} "$@" ;; esac
        mkdir {folder}/lost 2>/dev/null || exec {real} "$@"
        {real} "$@" >/dev/null
        echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2
        exit 1
        """
    )
    (folder / "sbatch").chmod(0o755)
    path = f"{folder}:{bench.cluster.environment['PATH']}"
    said = bench.launch("cluster.sbatch.hold=true", PATH=path)
    assert said.count("Slurm's controller does not answer") == 1
    (submission,) = bench.study.submissions()
    queued = bench.cluster.run("squeue", "-h", "-t", "pending,running", "-o", "%F").split()
    assert queued == [submission.job]
    bench.salt("cancel", str(bench.study.root))


def test_a_failed_element_while_its_job_completes_and_a_folder_that_is_gone(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (2, "1,2"))
    bench.fail("run/s2")
    bench.cluster.hold.touch()
    try:
        bench.launch()
        rows = bench.until(lambda rows: rows["run/s2"].state not in ("pending", "running"))
        assert bench.cluster.run("squeue", "-h", "-r", "-t", "completing", "-o", "%i").split()
    finally:
        bench.cluster.hold.unlink()
    assert (rows["run/s2"].state, rows["run/s2"].reason) == ("failed", "error: the sky has fallen")
    bench.until(lambda _: bench.cluster.run("squeue", "-h") == "")
    shutil.rmtree(bench.study.root / "run")
    rows = bench.rows()
    assert in_state(rows, "lost") == {"run/s1", "run/s2"}
    assert {row.reason for row in rows.values()} == {"its folder is gone; salt retry runs it again"}
    bench.fail()
    bench.salt("retry", str(bench.study.root), "--failed")
    rows = bench.ended()
    assert in_state(rows, "finished") == rows.keys()


def test_an_interrupted_element_that_cannot_be_queued_again_says_so(bench: Bench) -> None:
    bench.pipeline.write_text(ONE_STAGE % (12, "1"))
    bench.step_seconds(0.5)
    folder = bench.pipeline.parent / "bin"
    folder.mkdir()
    refused = "echo Requested operation is presently disabled >&2; exit 1"
    (folder / "scontrol").write_text(
        f'#!/bin/sh\n[ "$1" = requeue ] && {{ {refused}; }}\nexec {shutil.which("scontrol")} "$@"\n'
    )
    (folder / "scontrol").chmod(0o755)
    bench.launch(PATH=f"{folder}:{bench.cluster.environment['PATH']}")
    row = bench.until(lambda rows: (rows["run/s1"].step or 0) > 0)["run/s1"]
    bench.cluster.run("scancel", "--signal=USR2", str(row.job))
    row = bench.ended()["run/s1"]
    said = "SIGUSR2 was received, and it was not queued again (Slurm says FAILED"
    assert (row.state, row.reason[: len(said)]) == ("failed", said)
    bench.step_seconds(0.05)
    bench.salt("retry", str(bench.study.root), "--failed")
    bench.ended()
    assert bench.losses("run/s1") == [1 + 1 / n for n in range(1, 13)]
