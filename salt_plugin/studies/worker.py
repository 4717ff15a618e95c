"""One element, as a process of a job runs it.

submitit's own handler of SIGUSR2 queues a job again at once, in the first process alone. Here all
processes pass the signal on, and the job is queued again once the run has saved and ended.
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
from salt_plugin.studies.attempts import FAILED, INTERRUPTED, STARTED, ElementDirectory, last_line

# Of a run that was asked to stop, and has saved (EX_TEMPFAIL).
TO_BE_CONTINUED = 75

# A process that has lost another waits so long for word of why.
WORD_SECONDS = 3.0

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

# Has Linux kill a process when this one is killed (prctl's PR_SET_PDEATHSIG): a run directory
# stands that, and whoever goes on finds nobody at work in it.
_DIE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
DIE_WITH_PARENT = [sys.executable, "-S", "-c", _DIE] if sys.platform == "linux" else []


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
    """Runs an element as one process of a Slurm job; what is interrupted is queued again.

    Raises:
        ElementFailedError: The command has failed, or is interrupted again and again.
        InterruptedElementError: It was stopped for good, as by `scancel`.
    """
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    job = queue.own_job_id()
    try:
        work_once(work, rank, job)
    except InterruptedElementError:
        if job is None or not queue.requeue(job):
            raise


def work_once(work: Work, rank: int = 0, job: str | None = None, in_process: bool = False) -> None:
    """Runs an element once; nothing happens where it is finished.

    Raises:
        ElementFailedError: The command has failed, or is interrupted again and again.
        InterruptedElementError: It was stopped, and goes on at the next attempt.
    """
    files = ElementDirectory(Path(work.folder))
    if files.finished.is_file():
        return
    files.root.mkdir(parents=True, exist_ok=True)
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if rank == 0:
        files.note(STARTED, job=job, restart=restart, host=socket.gethostname(), pid=os.getpid())
    began = time.monotonic()
    code, signalled = (_call(work) if in_process else _spawn(work, files, rank)), _received
    if code == 0:
        if rank == 0:
            files.finish(time.monotonic() - began)
        return
    said = last_line(files.log(rank))
    if code == TO_BE_CONTINUED or code < 0 or signalled:
        if failure := _failure_of_others(files, signalled):
            raise ElementFailedError(failure)
        reason = _how(code, signalled)
        step = files.progress()["step"] or 0
        if rank == 0 or code < 0:
            files.note(INTERRUPTED, reason=reason, step=step, job=job, rank=rank)
        if not files.stuck():
            raise InterruptedElementError(reason)
        said = f"interrupted again and again without getting past step {step}: {reason}"
    files.note(FAILED, reason=said, status=code, job=job, rank=rank)
    raise ElementFailedError(said)


def _failure_of_others(files: ElementDirectory, signalled: list[int]) -> str | None:
    """Returns why another process has failed and so ended this one, None where none has."""
    if int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return None
    # srun's signal comes after the other's word; without one, that may be yet to come.
    deadline = time.monotonic() + (0 if signalled else WORD_SECONDS)
    while (failure := files.failure()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return failure


_received: list[int] = []


def _spawn(work: Work, files: ElementDirectory, rank: int) -> int:
    command = [*work.prefix, "-m", work.module, *work.arguments]
    command[0] = shutil.which(command[0]) or command[0]
    path = [work.code, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    with ExitStack() as stack:
        log = stack.enter_context(files.log(rank).open("ab"))
        log.write(f"$ {shlex.join(command)}\n".encode())
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


def _how(code: int, signalled: list[int]) -> str:
    if signalled:
        return f"{signal.Signals(signalled[0]).name} was received"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else "it asked to be started again"


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
