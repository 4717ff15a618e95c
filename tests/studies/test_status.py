"""`salt status` of a run, and `salt` into a pipe that nobody reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from salt_plugin import cli
from salt_plugin.commands import status
from salt_plugin.config import compose, load_config
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies import slurm_commands
from salt_plugin.studies.elements import Element
from salt_plugin.studies.states import rows_of
from salt_plugin.studies.study import Study, Submission

# Several verbs in one process: to start another takes seconds. `train` would take longest.
UNREAD = """
import os, sys
from salt_plugin.cli import VERBS, main
verbs = [verb for verb in VERBS if verb != "train"]
for arguments in [[], *([verb, "--help"] for verb in verbs), sys.argv[1:]]:
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    os.close(read)
    sys.argv = ["salt", *arguments]
    try:
        main()
    except SystemExit:
        pass
"""


def asked(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    status.main([str(run.root), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == str(run.root)
    return found["elements"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has made three steps of its teacher, and is at work."""
    one = RunDirectory(tmp_path / "run")
    one.claim(load_config(compose(["method=salt", "preset=demo"])))
    one.teacher.make()
    one.teacher.metrics.write_text("step,loss,flops\n1,0.9,100\n3,0.5,300\n")
    return one


def test_a_run_has_a_row_for_each_stage(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = asked(run, capsys)
    assert (teacher["stage"], teacher["element"], teacher["state"]) == ("teacher", "run", "running")
    assert (teacher["step"], teacher["loss"], teacher["flops"]) == (3, 0.5, 300)
    assert (student["stage"], student["state"], student["step"]) == ("student", "waiting", None)
    run.release()
    assert [row["state"] for row in asked(run, capsys)] == ["interrupted", "waiting"]
    run.teacher.encoder.touch()
    assert [row["state"] for row in asked(run, capsys)] == ["finished", "interrupted"]
    run.summary.touch()
    assert [row["state"] for row in asked(run, capsys)] == ["finished", "finished"]
    status.main([str(run.root)])
    assert "2 finished" in capsys.readouterr().out


def test_a_teacher_that_is_named_is_no_stage_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.claim(load_config(compose(["method=salt", "preset=demo", "method.teacher.path=other"])))
    (student,) = asked(run, capsys)
    assert (student["stage"], student["state"]) == ("student", "running")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_no_verb_complains_of_a_pipe_that_nobody_reads(
    run: RunDirectory, tmp_path: Path, unbuffered: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNREAD, "status", str(run.root), "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_another_pipe_that_is_broken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(arguments: list[str]) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(status, "main", main)
    monkeypatch.setattr(sys, "argv", ["salt", "status"])
    with pytest.raises(BrokenPipeError):
        cli.main()


def test_what_was_interrupted_may_wait_in_a_queue_that_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Element("run", "s1", {}, None, "salt_plugin.cli", ["train"])
    study = Study(tmp_path / "study")
    files = study.element(one)
    files.root.mkdir(parents=True)
    study.file.write_text(json.dumps({"cluster": {"patience": 0}, "elements": [one._asdict()]}))
    study.add_submission(Submission("7", "run", [one.id], ""))
    files.note("started", job="7", restart=0, saved=0)
    files.end("interrupted", "SIGUSR2 was received", job="7", restart=0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm_commands, "patience", 0.0)  # it is set from the study

    def by_slurm(squeue: str) -> tuple[str, str]:
        for name, script in (("squeue", squeue), ("sacct", "exit 1")):
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        ((row,), _) = rows_of(study)
        return row.state, row.reason

    assert by_slurm("exit 0") == ("interrupted", "SIGUSR2 was received")
    assert by_slurm("echo '7|PENDING|BeginTime'") == (
        "pending",
        "BeginTime; before: SIGUSR2 was received",
    )
    away = "echo Unable to contact slurm controller >&2; exit 1"
    assert by_slurm(away) == ("unknown", "Slurm cannot be asked here")
    files.end("failed", "error: no luck", job="7", restart=0)
    assert by_slurm(away) == ("failed", "error: no luck")
