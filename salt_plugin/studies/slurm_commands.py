"""Slurm's commands: their answers, and patience while the controller is away."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from salt_plugin.errors import SaltError

Answer = TypeVar("Answer")

# State of a job as Slurm calls it, e.g. `PENDING`, and its reason, or an empty text.
JobState = tuple[str, str]

TIMEOUT = 120.0
LONGEST_PAUSE = 30.0

# Slurm's accounting may lag so many seconds behind.
ACCOUNTED_SECONDS = 10.0

# What commands say while the controller is down, starts or has too much to do.
AWAY = re.compile(
    "contact slurm controller|timed out|connection refused|temporarily unable|standby mode"
    "|unexpected message received|zero bytes|no answer within",
    re.IGNORECASE,
)

# Seconds for which commands are tried again while the controller is away: the profile's key. Jobs
# read it from this variable, commands from the study.
PATIENCE = "SALT_SLURM_PATIENCE"
patience = float(os.environ.get(PATIENCE, "600"))

# States of jobs that are not over.
PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


class SlurmError(SaltError):
    """A command of Slurm that is missing, or says no."""


def call(*command: str) -> str:
    """Returns what a command prints, `patiently`.

    Raises:
        SlurmError: It is missing, fails or does not answer.
    """
    return patiently(lambda: call_once(*command))


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Returns what Slurm answers; while its controller is away, asks again after growing pauses.

    Raises:
        SlurmError: It refuses, or was away until `patience` or Ctrl-C ended the wait.
    """
    deadline, pause = time.monotonic() + patience, 1.0
    while True:
        try:
            return ask()
        except SlurmError as error:
            left = deadline - time.monotonic()
            if left <= 0 or not _may_pass(str(error)):
                raise
            if pause == 1:
                print(
                    f"Slurm's controller does not answer, or has just started ({error}); trying "
                    f"again for {patience:g} s, or until Ctrl-C",
                    file=sys.stderr,
                )
            try:
                time.sleep(min(pause, left))
            except KeyboardInterrupt:
                raise error from None
        pause = min(2 * pause, LONGEST_PAUSE)


def _may_pass(said: str) -> bool:
    """Tells whether Slurm may say something else soon."""
    if "node configuration is not available" in said:
        # A controller that has just started does not know its nodes yet.
        return bool(call_once("sinfo", "-h", "-t", "unknown", "-o", "%D"))
    return AWAY.search(said) is not None


def call_once(*command: str) -> str:
    """Returns what a command prints.

    Raises:
        SlurmError: It is missing, fails or does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise SlurmError(
            f"{command[0]} is not installed here: give cluster=local, or launch where Slurm's "
            "commands are"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} gave no answer within {TIMEOUT:g} s") from None
    if done.returncode:
        text = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}"
        said = [line for line in text.splitlines() if not line.startswith('Try "')]
        raise SlurmError(f"{command[0]}: {said[-1].removeprefix(f'{command[0]}: ')}")
    return done.stdout


def job_states(jobs: Sequence[str]) -> tuple[dict[str, JobState], list[str], bool]:
    """Asks accounting and the queue for jobs.

    Args:
        jobs: Ids, of arrays without the index.

    Returns:
        The states of jobs and elements of arrays by their ids; remarks on what could not be asked;
        whether a job that is not among them is not in the queue.
    """
    if not jobs:
        return {}, [], True
    found: dict[str, JobState] = {}
    remarks = []
    try:
        found |= _accounted(jobs)
    except SlurmError as error:
        remarks.append(
            f"no accounting ({error}): jobs that Slurm has forgotten are known by their files alone"
        )
    columns = ("-h", "-r", "-t", "all", "-o", "%i|%T|%r")
    try:
        lines = call("squeue", *columns, "-j", ",".join(jobs)).splitlines()
    except SlurmError as error:
        # A single id that Slurm has forgotten is an error.
        if "Invalid job id" not in str(error):
            return found, [*remarks, f"the queue cannot be asked ({error})"], False
        lines = []
    for line in lines:
        job, state, reason = line.split("|", 2)
        found[job] = state, "" if reason == "None" else reason
    return found, remarks, True


def _accounted(jobs: Sequence[str]) -> dict[str, JobState]:
    from submitit.slurm.slurm import SlurmInfoWatcher

    text = call_once("sacct", "-P", "-X", "-j", ",".join(jobs), "-o", "JobID,State,NodeList")
    found = {}
    for job, info in SlurmInfoWatcher().read_info(text).items():
        nodes = info["NodeList"]
        reason = f"on {nodes}" if nodes and nodes != "None assigned" else ""
        found[job] = info["State"].partition(" ")[0], reason  # "CANCELLED by 0"
    return found


def commented(comment: str) -> list[str]:
    """Returns the ids of the user's jobs in the queue that have a comment, arrays once."""
    text = call("squeue", "-h", "-u", getpass.getuser(), "-o", "%F|%k")
    rows = [line.split("|", 1) for line in text.splitlines() if "|" in line]
    return list(dict.fromkeys(job for job, said in rows if said == comment))


def own_job_id() -> str | None:
    """Returns the id of the job that this process belongs to, with its index in an array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def own_restart() -> int:
    """Returns how often the job that this process belongs to was queued again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def out_of_memory(job: str) -> str | None:
    """Returns peak and limit where the processes of a job, which have ended, ran out of memory.

    None where they did not, or accounting does not say.
    """
    command = ("sacct", "-n", "-P", "--units=M", "-j", job, "-o", "JobID,State,MaxRSS,ReqMem")
    deadline = time.monotonic() + ACCOUNTED_SECONDS
    while time.monotonic() < deadline:
        try:
            rows = [line.split("|") for line in call_once(*command).splitlines()]
        except SlurmError:
            return None
        steps = [row for row in rows if row[0] == f"{job}.0" and row[1] != "RUNNING"]
        # The start of a job that ends at once may come to accounting after its steps.
        if steps and rows[0][1] != "PENDING":
            (_, state, peak, _), limit = steps[0], rows[0][3]
            # Where Slurm itself looks after memory, it calls the step cancelled.
            if state == "OUT_OF_MEMORY" or 0 < _number(limit) <= _number(peak):
                return f"out of memory: peak {peak or 'unknown'}, limit {limit or 'unknown'}"
            if peak:  # it comes after the state
                return None
        time.sleep(0.5)
    return None


def _number(text: str) -> float:
    match = re.match(r"[\d.]+", text)
    return float(match[0]) if match else 0.0


def requeue(job: str) -> bool:
    """Queues a job again that is running; not one that is cancelled or queued already.

    Returns:
        Whether it will run again.

    Raises:
        SlurmError: The controller was away for too long, or does not know the job.
    """
    if _state(job) == "RUNNING":
        try:
            call("scontrol", "requeue", job)
        except SlurmError:
            pass  # another process of the job was faster, or it is not allowed
        else:
            return True
    return _state(job) in PENDING


def _state(job: str) -> str:
    return call("squeue", "-h", "-j", job, "-t", "all", "-o", "%T").strip()


def cancel(jobs: Sequence[str]) -> None:
    """Cancels jobs, arrays or elements; those that are over are left alone."""
    try:
        if jobs:
            call("scancel", *jobs)
    except SlurmError as error:
        if not any(text in str(error) for text in ("already", "Invalid job id")):
            raise
