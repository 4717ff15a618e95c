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
