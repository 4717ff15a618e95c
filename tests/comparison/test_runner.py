"""Processes of a comparison: order, threads, and that none is left behind."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from salt_plugin.comparison.runner import Command, Job, last_line, run_jobs, threads_of_each


class Quiet:
    def __init__(self) -> None:
        self.said: list[str] = []

    def started(self, job: str, title: str) -> None:
        self.said.append(f"{job} {title}")

    def running(self, states: Mapping[str, str]) -> None:
        pass

    def finished(self, job: str, seconds: float) -> None:
        self.said.append(f"{job} finished")

    def failed(self, job: str, reason: str) -> None:
        self.said.append(f"{job} failed")


def job(root: Path, name: str, *codes: str) -> Job:
    """Each code finds its product's name in sys.argv[1]."""
    commands = []
    for number, code in enumerate(codes):
        product = root / f"{name}-{number}"
        arguments = [sys.executable, "-S", "-c", f"import os, sys; {code}", str(product)]
        commands.append(Command(f"part {number}", arguments, product))
    return Job(name, commands, root / f"{name}.log")


TOUCH = "open(sys.argv[1], 'w').close()"


def test_commands_follow_one_another_and_what_exists_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "b-0").touch()
    jobs = [job(tmp_path, "a", TOUCH, TOUCH), job(tmp_path, "b", "sys.exit(1)", TOUCH)]
    reporter = Quiet()
    assert run_jobs(jobs, 1, reporter) == {}
    assert reporter.said == ["a part 0", "a part 1", "a finished", "b part 1", "b finished"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('first'); sys.exit('error: no luck\\n\\n')", "part 0: error: no luck"),
        ("print('all well')", "part 0: all well"),  # but it leaves nothing
        ("os.write(1, b'half'); os.kill(os.getpid(), 9)", "part 0 was ended by SIGKILL; .*: half"),
    ],
)
def test_a_failure_is_told_and_stops_no_other(tmp_path: Path, code: str, reason: str) -> None:
    failed = run_jobs([job(tmp_path, "a", code, TOUCH), job(tmp_path, "b", TOUCH)], 2, Quiet())
    assert failed.keys() == {"a"}
    assert re.fullmatch(reason, failed["a"])
    assert (tmp_path / "b-0").exists()
    assert not (tmp_path / "a-1").exists()


def test_jobs_at_a_time_share_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    write = "open(sys.argv[1], 'w').write(os.environ['OMP_NUM_THREADS'])"
    run_jobs([job(tmp_path, "a", write)], 2, Quiet())
    assert (tmp_path / "a-0").read_text() == "2"
    assert threads_of_each(9) == 1


def test_an_interruption_ends_the_processes_and_what_they_started(tmp_path: Path) -> None:
    code = (
        "import signal; child = os.fork(); child and open(sys.argv[1] + '.pid', 'w')"
        ".write(f'{os.getpid()} {child}'); signal.pause()"
    )
    pids = tmp_path / "a-0.pid"

    class Impatient(Quiet):
        def running(self, states: Mapping[str, str]) -> None:
            if pids.exists() and len(pids.read_text().split()) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job(tmp_path, "a", code)], 1, Impatient())
    time.sleep(0.2)
    for pid in map(int, pids.read_text().split()):
        assert not _at_work(pid)


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 20_000 + b"\nlast \xff line\n \n")
    assert last_line(log) == "last � line"


def _at_work(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc").is_dir():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return stat.is_file() and stat.read_text().split()[2] != "Z"
