"""Studies on this machine: stages in order, failures, going on; and a real one, in-process."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from salt_plugin.cli import main
from salt_plugin.studies.attempts import ElementDirectory
from salt_plugin.studies.states import counts, rows_of
from salt_plugin.studies.study import Study

STUB = Path(__file__).parents[1] / "cluster" / "stub_python.py"

PIPELINE = """\
name: tiny
overrides: [preset=demo, trainer.max_steps=3]
stages:
  teacher: {method: pixel_teacher, sweep: ["seed=1,2"]}
  student:
    method: salt
    needs: teacher
    overrides: ["method.teacher.path={teacher}"]
    sweep: ["seed=1,2"]
  probe: {command: probe, needs: student, overrides: ["{student}", --json]}
  report: {command: report, after: [teacher, student, probe]}
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stub of Python in the working directory is told what to do."""
    folder = tmp_path / "control"
    folder.mkdir()
    (folder / "fail").touch()
    (folder / "hungry").touch()
    (folder / "seconds").write_text("0")
    monkeypatch.setenv("SALT_STUB", str(folder))
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(PIPELINE)
    profile = {"kind": "local", "python": f"{sys.executable} {STUB}", "array_parallelism": 4}
    Path("here.yaml").write_text(json.dumps(profile))
    return folder


def salt(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["salt", *arguments])
    main()


def launch(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    salt(monkeypatch, "launch", "tiny.yaml", "cluster=here.yaml", "--out", "study", *more)


def test_a_failure_takes_what_is_based_on_it_and_retry_completes(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (control / "fail").write_text("teacher/s2")
    with pytest.raises(SystemExit):
        launch(monkeypatch)
    said = capsys.readouterr().err
    assert "5 of the elements failed" in said
    assert "teacher/s2: error: the sky has fallen" in said
    assert "probe/s2-s1: needs student/s2-s1, which is not finished" in said
    study = Study(Path("study").absolute())
    assert counts(rows_of(study)[0]) == {"finished": 6, "waiting": 4, "failed": 1}
    assert (study.root / "report/all/table.md").read_text().count("| missing |") == 5
    (control / "fail").write_text("")
    salt(monkeypatch, "retry", "study")
    salt(monkeypatch, "status", "study", "--json")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["counts"] == {"finished": 11}
    assert "missing" not in (study.root / "report/all/table.md").read_text()
    assert [row["restarts"] for row in found["elements"] if row["stage"] == "teacher"] == [0, 1]
    assert found["elements"][0]["log"] == str(study.root / "teacher/s1/log.txt")


def test_dry_run_writes_nothing(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(monkeypatch, "--dry-run", "cluster.flops_per_second=1e12")
    said = capsys.readouterr().out
    assert "aftercorr:1" in said
    assert "11 elements" in said
    assert "FLOPs planned for 6 of 6 that train" in said
    assert "nothing was submitted or run" in said
    assert not Path("study").exists()


def test_another_study_is_refused_and_says_what_differs(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(monkeypatch)
    launch(monkeypatch)  # the same: nothing is left to do
    for change, expected in (
        ("stages.teacher.sweep=['seed=1']", "missing now: teacher/s2, student/s2-s1, and 3 more"),
        (
            "overrides=[preset=demo,trainer.max_steps=4]",
            "trainer.max_steps was 3 and is now 4: teacher/s1, teacher/s2, and 4 more",
        ),
        ("stages.student.overrides=[]", "method.teacher.path was 'STUDY/teacher/s1' and is now "),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            launch(monkeypatch, change)
        said = capsys.readouterr().err.replace(str(Path.cwd() / "study"), "STUDY")
        assert "holds another study" in said
        assert expected in said


def test_a_study_takes_new_values_stages_and_seeds(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A checkout in the working directory is not what the study runs.
    Path("salt_plugin").mkdir()
    Path("salt_plugin/__init__.py").write_text("raise ImportError('not this one')")
    launch(monkeypatch)
    finished = sorted(Path("study").glob("*/*/finished.json"))
    before = {file: file.stat().st_mtime_ns for file in finished if file.parts[1] != "report"}
    assert len(before) == 10
    more = "stages.longer={method: pixel_teacher, overrides: [seed=1]}"
    launch(monkeypatch, "stages.student.sweep=['seed=1,2,3']", more, "--dry-run")
    assert "6 of 16 elements; " in capsys.readouterr().out  # two students, their probes, the report
    launch(monkeypatch, "stages.student.sweep=['seed=1,2,3']", more)
    salt(monkeypatch, "status", "study", "--json")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["counts"] == {"finished": 11 + 2 * 2 + 1}
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (Path("study/report/all/table.md").read_text()).count("| student |") == 2 * 3
    with Path("study/report/all/results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "student"]
    assert [(row["teacher.seed"], row["student.seed"]) for row in rows] == [
        (teacher, student) for teacher in "12" for student in "123"
    ]


@pytest.mark.slow
def test_additions_run_the_code_that_the_study_was_launched_with(control: Path) -> None:
    command = [sys.executable, "-m", "salt_plugin.cli", "launch", "tiny.yaml", "cluster=here.yaml"]
    command += [
        "--out",
        "study",
        "overrides=[preset=demo,trainer.max_steps=2]",
        "stages.teacher.sweep=['seed=1']",
    ]
    subprocess.run([*command, "stages.student.sweep=['seed=1']"], check=True)
    kept, output = (
        Path("study/code/salt_plugin/studies/report.py"),
        Path("study/report/all/output.txt"),
    )
    kept.write_text(kept.read_text() + "\nprint('this is the copy')\n")
    assert "this is the copy" not in output.read_text()
    done = subprocess.run(
        [*command, "stages.student.sweep=['seed=1,2']"], check=True, capture_output=True, text=True
    )
    assert "own copy of the code" in done.stderr
    assert "this is the copy" in output.read_text()
    shutil.rmtree("study/code/salt_plugin")  # what is left cannot take the command
    grown = [*command, "stages.student.sweep=['seed=1,2']", "--dry-run"]
    subprocess.run(grown, check=True, timeout=60)
    shutil.rmtree("study/code")
    done = subprocess.run(
        [*command, "stages.student.sweep=['seed=1,2,3']"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "own copy" not in done.stderr
    assert "this is the copy" not in output.read_text()


def test_an_override_that_does_not_compose_is_found_before_anything_runs(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for change, expected in (
        ("stages.student.sweep=['optimizer.lr=1e-3,-1']", "student/s1-lr-1: optimizer.lr"),
        ("stages.teacher.method=slat", "teacher/s1: method=slat: no such method; did you mean 'sa"),
    ):
        with pytest.raises(SystemExit):
            launch(monkeypatch, change)
        assert expected in capsys.readouterr().err
    assert not Path("study").exists()


def test_cancel_lets_the_runs_save_and_retry_goes_on(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (control / "seconds").write_text("0.3")
    command = [sys.executable, "-m", "salt_plugin.cli", "launch", "tiny.yaml"]
    process = subprocess.Popen([*command, "cluster=here.yaml", "--out", "study"])
    files = ElementDirectory(Path("study/teacher/s1").absolute())
    deadline = time.monotonic() + 60
    while not files.progress()["step"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    salt(monkeypatch, "cancel", "study")
    assert process.wait(30) == 1
    assert [one["event"] for one in files.events()] == ["started", "interrupted"]
    assert "SIGTERM" in files.events()[-1]["reason"]
    (control / "seconds").write_text("0")
    salt(monkeypatch, "retry", "study")
    assert counts(rows_of(Study(Path("study").absolute()))[0]) == {"finished": 11}
    assert len((Path("study/teacher/s1/teacher/metrics.csv")).read_text().splitlines()) == 1 + 3


def test_what_is_killed_goes_on_and_what_fails_says_why(
    control: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (control / "seconds").write_text("0.3")
    (control / "fail").write_text("teacher/s2:hydra")
    # A shell ends with 137 where its command is killed, as some containers do.
    profile = json.loads(Path("here.yaml").read_text())
    shell = 'sh -c \'"$0" "$@"; exit $?\''
    Path("here.yaml").write_text(json.dumps(profile | {"container": shell}))
    command = [sys.executable, "-m", "salt_plugin.cli", "launch", "tiny.yaml"]
    command += ["cluster=here.yaml", "--out", "study"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    files = ElementDirectory(Path("study/teacher/s1").absolute())
    deadline = time.monotonic() + 60
    while not files.progress()["step"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((files.root / "pid-0").read_text()), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert "teacher/s1: finished in" in said
    assert "teacher/s2: failed: ValueError: the sky has fallen" in said
    events = [(one["event"], one.get("reason")) for one in files.events()]
    assert events == [
        ("started", None),
        ("interrupted", "its process was ended by SIGKILL"),
        ("started", None),
        ("finished", None),
    ]
    headers = re.findall(r"# [\d-]+ [\d:]+ process 0 on [\w.-]+(.*)", files.log().read_text())
    assert headers == ["", ", the last attempt ended: its process was ended by SIGKILL"]


def test_nothing_outlives_a_launch_that_is_killed_and_retry_goes_on(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (control / "seconds").write_text("0.3")
    command = [sys.executable, "-m", "salt_plugin.cli", "launch", "tiny.yaml"]
    process = subprocess.Popen([*command, "cluster=here.yaml", "--out", "study"])
    pid = Path("study/teacher/s1/pid-0")
    deadline = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while _alive(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (control / "seconds").write_text("0")
    salt(monkeypatch, "retry", "study")
    assert counts(rows_of(Study(Path("study").absolute()))[0]) == {"finished": 11}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_launching_and_asking_imports_no_torch(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; sys.argv = ['salt', *sys.argv[1:]]\n"
        "from salt_plugin.cli import main\n"
        "main()\n"
        "assert not {'torch', 'lightly'} & sys.modules.keys()"
    )
    for arguments in (
        ["launch", "tiny.yaml", "cluster=here.yaml", "--out", "study"],
        ["status", "study"],
        ["retry", "study"],
        ["cancel", "study"],
    ):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=os.environ)


@pytest.mark.parametrize("verb", ["status", "cancel", "retry"])
def test_a_folder_that_is_no_study(
    control: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    with pytest.raises(SystemExit):
        salt(monkeypatch, verb, "nowhere")
    assert "nowhere is no study: study.json is missing" in capsys.readouterr().err
    assert not Path("nowhere").exists()
