"""One attempt at an element: its command as a process, and how that has ended.

submitit's own handler of SIGUSR2 queues a job again at once, in the first process alone. Here all
processes pass the signal on, and `batch_script` queues the job again once all of them have ended.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from salt_plugin.errors import SaltError
from salt_plugin.studies.attempts import FAILED, FINISHED, INTERRUPTED, STARTED
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import TRAIN
from salt_plugin.studies.slurm_commands import own_job_id, own_restart
from salt_plugin.studies.snapshot import with_code
from salt_plugin.studies.study import Study

# Has Linux kill a process when this one is killed (prctl's PR_SET_PDEATHSIG): a run directory
# stands that, and the next attempt finds no process at work in it.
_DIE = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
DIE_WITH_PARENT = [sys.executable, "-S", "-c", _DIE] if sys.platform == "linux" else []


class Attempt:
    """A process that runs an element.

    Args:
        study: The study.
        element: Of it.
        prefix: What comes before the module: Python, in a container or not.
        rank: Number of the process among those of the job.
        job: The Slurm job; None on this machine.
        environment: Further variables of the process.
    """

    def __init__(
        self,
        study: Study,
        element: Element,
        prefix: Sequence[str],
        rank: int = 0,
        job: str | None = None,
        **environment: str,
    ) -> None:
        self.files = study.element(element)
        self.files.root.mkdir(parents=True, exist_ok=True)
        self.rank = rank
        self.began = time.monotonic()
        self.id = {"job": job, "restart": own_restart() if job else len(self.files.starts())}
        command = [*prefix, "-m", element.module, *element.arguments]
        with self.files.log(rank).open("ab") as log:
            self._since = log.tell()
            log.write(f"{self._header()}\n$ {shlex.join(command)}\n".encode())
            if rank == 0:
                self.files.note(STARTED, **self.id, saved=self.files.saved())
            log.flush()
            # What trains has no result on stdout.
            output = log if element.arguments[0] == TRAIN else self.files.output.open("wb")
            self.process = subprocess.Popen(
                [*DIE_WITH_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=study.stored()["cwd"],
                # Without it, the last line of Hydra's errors is a hint how to see them.
                env=with_code(study.code) | {"HYDRA_FULL_ERROR": "1"} | environment,
                # Here, Ctrl-C reaches the launcher alone, which ends the others.
                start_new_session=job is None,
            )
            output.close()

    def _header(self) -> str:
        """Returns the line that separates attempts in a log."""
        host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        parts = [f"# {time.strftime('%F %T')} process {self.rank} on {host}"]
        if self.id["job"] is not None:
            parts += [f"job {self.id['job']}", f"restart {self.id['restart']}"]
        if self.rank == 0 and (before := self.files.reason(INTERRUPTED)):
            parts.append(f"the last attempt ended: {before}")
        return ", ".join(parts)

    def ended(self, received: int | None = None) -> tuple[str, str]:
        """Notes how the process has ended.

        Args:
            received: The signal that it was sent because this process received it.

        Returns:
            `finished`, `interrupted` or `failed`, and the reason. Interrupted is what was asked to
            stop, was killed, or has lost a process that it needs: it goes on at the next attempt.
        """
        code = self.process.returncode
        if code == 0:
            if self.rank == 0:
                self.files.finish(time.monotonic() - self.began)
            return FINISHED, ""
        event, reason = INTERRUPTED, self.files.last_words(self.rank, self._since)
        # Shells and containers add 128 to the number of a signal.
        number = -code if code < 0 else code - 128
        if received:
            reason = f"{signal.Signals(received).name} was received"
        elif number in set(signal.Signals):
            reason = f"its process was ended by {signal.Signals(number).name}"
        elif code != os.EX_TEMPFAIL:
            event = FAILED
        # srun's signal is no reason where another process has given one.
        if not received or (self.rank == 0 and not self.files.reason(INTERRUPTED)):
            self.files.end(event, reason, self.rank, **self.id, signal=received)
        return event, reason


def work_in_job(root: Path, element: Element, prefix: Sequence[str]) -> None:
    """Runs an element as one process of a Slurm job; nothing happens where it is finished.

    Args:
        root: The folder of the study.
        element: Of it.
        prefix: As in `Attempt`.

    Raises:
        SaltError: The command has failed.
        SystemExit: With status 75: it was interrupted. srun then ends the other processes.
    """
    study = Study(root)
    if study.finished(element):
        return
    received: list[int] = []
    attempt: Attempt | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if attempt is not None:
            attempt.process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, pass_on)
    attempt = Attempt(study, element, prefix, int(os.environ["SLURM_PROCID"]), own_job_id())
    if received:  # before there was a process to pass it on to
        attempt.process.terminate()
    attempt.process.wait()
    event, reason = attempt.ended(received[0] if received else None)
    if event == FAILED:
        raise SaltError(reason)
    if event == INTERRUPTED:
        raise SystemExit(os.EX_TEMPFAIL)
