"""Commands in processes of their own, several at a time, none of which outlives this one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0

# Has Linux kill a process when this one is killed (prctl's PR_SET_PDEATHSIG): a run directory
# stands that, and the next `salt compare` finds nobody at work in it.
DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


class Command(NamedTuple):
    """One process of a job.

    Attributes:
        title: What it does.
        arguments: Of the process.
        product: The file that it leaves; where that exists, it is not started.
    """

    title: str
    arguments: Sequence[str]
    product: Path


class Job(NamedTuple):
    """Commands that follow one another.

    Attributes:
        name: For people.
        commands: In their order.
        log: Where they write.
    """

    name: str
    commands: Sequence[Command]
    log: Path

    def next_command(self) -> Command | None:
        """Returns the first whose product is missing."""
        return next((one for one in self.commands if not one.product.is_file()), None)


class Reporter(Protocol):
    """Told how jobs go."""

    def started(self, job: str, title: str) -> None:
        """A command of a job was started."""

    def running(self, states: Mapping[str, str]) -> None:
        """Jobs at work, each with what it said last; called several times a second."""

    def finished(self, job: str, seconds: float) -> None:
        """A job has finished in this time; 0 where it was finished before."""

    def failed(self, job: str, reason: str) -> None:
        """A command of a job has failed."""


class _Running(NamedTuple):
    job: Job
    command: Command
    process: subprocess.Popen[bytes]


def run_jobs(jobs: Sequence[Job], at_once: int, reporter: Reporter) -> dict[str, str]:
    """Runs jobs, or the rest of them.

    Args:
        jobs: In the order in which they are started.
        at_once: Most jobs at a time; they share the threads of the machine.
        reporter: Told how they go.

    Returns:
        The reason of each job that failed, by its name. The others are not affected.
    """
    waiting = list(jobs)
    running: list[_Running] = []
    failed: dict[str, str] = {}
    began: dict[str, float] = {}
    launch = _launcher(at_once)

    def go_on(job: Job) -> None:
        command = job.next_command()
        if command is None:
            since = began.get(job.name)
            reporter.finished(job.name, 0.0 if since is None else time.monotonic() - since)
            return
        began.setdefault(job.name, time.monotonic())
        running.append(_Running(job, command, launch(job, command)))
        reporter.started(job.name, command.title)

    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                go_on(waiting.pop(0))
            time.sleep(POLL_SECONDS if running else 0)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                if one.process.returncode == 0 and one.command.product.is_file():
                    go_on(one.job)
                else:
                    failed[one.job.name] = _reason(one)
                    reporter.failed(one.job.name, failed[one.job.name])
            reporter.running({one.job.name: last_line(one.job.log) for one in running})
    finally:
        _end([one.process for one in running])
    return failed


def last_line(log: Path) -> str:
    """Returns the last line of a log that says anything."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def threads_of_each(at_once: int) -> int:
    """Returns how many threads a process gets: its share of OMP_NUM_THREADS, or of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdecimal() else _cores()
    return max(1, threads // at_once)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _launcher(at_once: int) -> Callable[[Job, Command], subprocess.Popen[bytes]]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads_of_each(at_once))}
    linux = sys.platform.startswith("linux")
    before = [sys.executable, "-S", "-c", DIE_WITH_PARENT] if linux else []

    def launch(job: Job, command: Command) -> subprocess.Popen[bytes]:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            log.write(f"$ {shlex.join(command.arguments)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [*before, *command.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
            )

    return launch


def _reason(one: _Running) -> str:
    said = last_line(one.job.log)
    code = one.process.returncode
    if code < 0:
        return f"{one.command.title} was ended by {signal.Signals(-code).name}; it said: {said}"
    return f"{one.command.title}: {said}"


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends processes and what they have started; those that take too long are killed."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
