"""One element, as a process of a job runs it.

submitit's own handler of SIGUSR2 queues a job again at once, in the first process alone. Here all
processes pass the signal on, and `batch_script` queues the job again once all of them have ended.
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from salt_plugin.errors import SaltError
from salt_plugin.studies import queue
from salt_plugin.studies.attempts import FAILED, INTERRUPTED, STARTED, ElementDirectory

# Of a run that was asked to stop, and has saved: the status of `errors.Interrupted`.
TO_BE_CONTINUED = os.EX_TEMPFAIL

# A process that has lost another waits so long for word of why.
WORD_SECONDS = 3.0

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

# Has Linux kill a process when this one is killed (prctl's PR_SET_PDEATHSIG): a run directory
# stands that, and whoever goes on finds nobody at work in it.
_DIE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
DIE_WITH_PARENT = [sys.executable, "-S", "-c", _DIE] if sys.platform == "linux" else []

# The working directory may be a checkout: what a study runs is its own copy.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


class ElementFailedError(SaltError):
    """The command of an element has failed."""


class InterruptedElementError(SaltError):
    """The element has been stopped and is not over."""


@dataclass(frozen=True)
class Work:
    """What is run.

    Attributes:
        folder: Of the element.
        prefix: What comes before the module: Python, in a container or not.
        module: What Python runs.
        arguments: Of the module.
        cwd: Where relative paths count from.
        code: The study's copy of the package.
        keep_output: Whether stdout is a result, kept apart from the log.
    """

    folder: str
    prefix: list[str]
    module: str
    arguments: list[str]
    cwd: str
    code: str
    keep_output: bool


def work_in_job(work: Work) -> None:
    """Runs an element as one process of a Slurm job.

    Raises:
        ElementFailedError: The command has failed.
        SystemExit: With status 75: it was interrupted. srun then ends the other processes.
    """
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    try:
        work_once(work, rank, queue.own_job_id())
    except InterruptedElementError:
        raise SystemExit(TO_BE_CONTINUED) from None


def work_once(work: Work, rank: int = 0, job: str | None = None, in_process: bool = False) -> None:
    """Runs an element once; nothing happens where it is finished.

    Raises:
        ElementFailedError: The command has failed.
        InterruptedElementError: It was stopped or killed, or has lost a process that it needs, and
            goes on at the next attempt.
    """
    files = ElementDirectory(Path(work.folder))
    if files.finished.is_file():
        return
    files.root.mkdir(parents=True, exist_ok=True)
    log = files.log(rank)
    since = log.stat().st_size if log.is_file() else 0
    header = _header(files, rank, job)
    attempt = {"job": job, "restart": queue.own_restart()}
    if rank == 0:
        place = {"host": _host(), "pid": os.getpid()}
        files.note(STARTED, **attempt, **place, saved=files.saved())
    began = time.monotonic()
    code = _call(work) if in_process else _spawn(work, files, rank, header)
    if code == 0:
        if rank == 0:
            files.finish(time.monotonic() - began)
        return
    said = files.last_words(rank, since)
    killed = _killed_by(code)
    if code == TO_BE_CONTINUED or killed or _received:
        if failure := _failure_of_others(files):
            raise ElementFailedError(failure)
        if _received:
            said = f"{signal.Signals(_received[0]).name} was received"
        elif killed:
            said = f"its process was ended by {killed}"
        # srun's signal is no reason where another process has told one.
        if not _received or (rank == 0 and not files.reason(INTERRUPTED)):
            files.end(INTERRUPTED, said, rank, **attempt, signal=_received[:1])
        raise InterruptedElementError(said)
    files.end(FAILED, said, rank, **attempt, status=code)
    raise ElementFailedError(said)


def _header(files: ElementDirectory, rank: int, job: str | None) -> str:
    """Returns what tells one attempt from the others in a log."""
    parts = [f"{time.strftime('%F %T')} process {rank} on {_host()}"]
    if job is not None:
        parts.append(f"job {job}, restart {queue.own_restart()}")
    if rank == 0 and (before := files.reason(INTERRUPTED)):
        parts.append(f"the last attempt ended: {before}")
    return f"# {', '.join(parts)}"


def _host() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _killed_by(code: int) -> str | None:
    """Returns the signal that has ended a command; shells and containers add 128 to its number."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number).name if number in set(signal.Signals) else None


def _failure_of_others(files: ElementDirectory) -> str | None:
    """Returns why another process has failed and so ended this one, None where none has."""
    if int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return None
    # srun's signal comes after the other's word; without one, that may be yet to come.
    deadline = time.monotonic() + (0 if _received else WORD_SECONDS)
    while (failure := files.reason(FAILED)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return failure


_received: list[int] = []


def _spawn(work: Work, files: ElementDirectory, rank: int, header: str) -> int:
    command = [*work.prefix, "-m", work.module, *work.arguments]
    command[0] = shutil.which(command[0]) or command[0]
    path = [work.code, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | SAFE_PATH | {"PYTHONPATH": os.pathsep.join(path)}
    # Without it, the last line of Hydra's errors is a hint how to see them.
    environment["HYDRA_FULL_ERROR"] = "1"
    with ExitStack() as stack:
        log = stack.enter_context(files.log(rank).open("ab"))
        log.write(f"{header}\n$ {shlex.join(command)}\n".encode())
        log.flush()
        output = log
        if work.keep_output:
            output = stack.enter_context(files.output.open("wb"))
        with _passing_on() as children:
            process = subprocess.Popen(
                [*DIE_WITH_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=work.cwd,
                env=environment,
            )
            children.append(process)
            if _received:  # it came before there was anyone to pass it on to
                process.terminate()
            return process.wait()


@contextmanager
def _passing_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Passes signals on to the processes in a list; restores the handlers afterwards."""
    children: list[subprocess.Popen[bytes]] = []
    _received.clear()

    def pass_on(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield children
    finally:
        for number, handler in before.items():
            # What is left to do is short; a second signal must not cut it off.
            signal.signal(number, signal.SIG_IGN if _received else handler)


def _call(work: Work) -> int:
    """Runs the module in this process."""
    files = ElementDirectory(Path(work.folder))
    _received.clear()
    before, sys.argv = sys.argv, [work.module, *work.arguments]
    try:
        with ExitStack() as stack:
            if work.keep_output:
                stack.enter_context(redirect_stdout(stack.enter_context(files.output.open("w"))))
            runpy.run_module(work.module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        sys.argv = before
    return 0


def arguments_of(work: Work) -> list[str]:
    """Returns the arguments of Python that run an element."""
    return ["-m", "salt_plugin.studies.worker", json.dumps(asdict(work))]


def main(arguments: list[str]) -> None:
    """Runs the element that the command line describes."""
    try:
        work_once(Work(**json.loads(arguments[0])))
    except InterruptedElementError:
        raise SystemExit(TO_BE_CONTINUED) from None
    except ElementFailedError:
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1:])
