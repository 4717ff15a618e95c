"""Studies on a real Slurm: dependencies, failures, cancelling, retrying."""

from __future__ import annotations

import csv

import pytest

from salt_plugin.studies.states import Row
from tests.cluster.bench import Bench

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
    assert "holds another study: overrides was ['preset=demo', 'trainer.max_steps=4']" in said
    assert "11 of" not in said
    bench.salt("cancel", str(bench.study.root))
