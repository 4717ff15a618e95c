"""What Slurm says of jobs, and is told to do with them."""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from salt_plugin.studies.ask import SlurmError, call, call_once

# Accounting lags so far behind.
ACCOUNTED_SECONDS = 10.0

# States of jobs that are not over.
PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


class JobState(NamedTuple):
    """A job, or an element of an array.

    Attributes:
        state: As Slurm calls it, e.g. `PENDING`.
        reason: Slurm's, or an empty text.
    """

    state: str
    reason: str

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in PENDING or self.state in RUNNING


class Known(NamedTuple):
    """What Slurm knows of some jobs.

    Attributes:
        states: Of jobs and elements of arrays, by their ids.
        remarks: On what could not be asked.
        complete: Whether a job that is not among them is not in the queue.
    """

    states: dict[str, JobState]
    remarks: list[str]
    complete: bool


def states(jobs: Sequence[str]) -> Known:
    """Returns what Slurm knows of jobs.

    Args:
        jobs: Ids, of arrays without the index.
    """
    if not jobs:
        return Known({}, [], True)
    found: dict[str, JobState] = {}
    remarks = []
    try:
        found |= _accounted(jobs)
    except SlurmError as error:
        remarks.append(
            f"no accounting ({error}): jobs that Slurm has forgotten are told by their files alone"
        )
    try:
        found |= _queued(jobs)
    except SlurmError as error:
        # What has been forgotten: of a single id that is an error.
        if "Invalid job id" not in str(error):
            return Known(found, [*remarks, f"the queue cannot be asked ({error})"], False)
    return Known(found, remarks, True)


def _queued(jobs: Sequence[str]) -> dict[str, JobState]:
    text = call("squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T|%r")
    rows = (line.split("|", 2) for line in text.splitlines() if line.count("|") >= 2)
    return {job: JobState(state, "" if reason == "None" else reason) for job, state, reason in rows}


def _accounted(jobs: Sequence[str]) -> dict[str, JobState]:
    columns = "JobID,State,NodeList"
    text = call_once("sacct", "-n", "-P", "-X", "-j", ",".join(jobs), "-o", columns)
    found = {}
    for line in text.splitlines():
        job, state, nodes = line.split("|")[:3]
        # "CANCELLED by 0"; pending elements of an array stand in one row.
        reason = f"on {nodes}" if nodes and nodes != "None assigned" else ""
        for one in _expanded(job):
            found[one] = JobState(state.partition(" ")[0], reason)
    return found


def _expanded(job: str) -> list[str]:
    """Returns the ids of `12_[3-5,7%2]`."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if match is None:
        return [job]
    found = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        found += [f"{match[1]}_{n}" for n in range(int(first), int(last or first) + 1)]
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
            _, state, peak, _ = steps[0]
            limit = rows[0][3]
            # Where Slurm itself looks after memory, it calls the step cancelled.
            if state == "OUT_OF_MEMORY" or 0 < _mib(limit) <= _mib(peak):
                return f"out of memory: peak {peak or 'unknown'}, limit {limit or 'unknown'}"
            if peak:  # it comes after the state
                return None
        time.sleep(0.5)
    return None


def _mib(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)M[nc]?", text)  # of a node, or of a CPU: of earlier versions
    return float(match[1]) if match else 0.0


def requeue(job: str) -> bool:
    """Queues a job again that runs, in its own words; not one that is cancelled or queued already.

    Returns:
        Whether it goes on some time.

    Raises:
        SlurmError: Its controller was away for too long, or does not know the job.
    """
    state = _state(job)
    if state != "RUNNING":
        return state in PENDING
    try:
        call("scontrol", "requeue", job)
    except SlurmError:
        # Another process of the job was faster, or nobody may.
        return _state(job) in PENDING
    return True


def _state(job: str) -> str:
    return call("squeue", "-h", "-j", job, "-t", "all", "-o", "%T").strip()


def cancel(jobs: Iterable[str]) -> None:
    """Cancels jobs, arrays or elements; those that are over are left alone."""
    _each(["scancel"], list(jobs))


def release(jobs: Iterable[str]) -> None:
    """Lets held jobs begin; those that are over are left alone."""
    _each(["scontrol", "release"], list(jobs))


def _each(command: Sequence[str], jobs: Sequence[str]) -> None:
    for start in range(0, len(jobs), 500):
        try:
            call(*command, *jobs[start : start + 500])
        except SlurmError as error:
            if not any(text in str(error) for text in ("already", "Invalid job id")):
                raise


def largest_array() -> str:
    """Returns how many elements an array may have here."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    return found[1] if found else "unknown"


def partition_minutes(partition: str | None) -> int | None:
    """Returns the longest time limit of a partition, or of the default one; None: there is none."""
    for line in call("scontrol", "-o", "show", "partition").splitlines():
        values: Mapping[str, str] = dict(part.split("=", 1) for part in line.split() if "=" in part)
        ours = values["PartitionName"] == partition if partition else values["Default"] == "YES"
        if ours:
            match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):\d\d", values["MaxTime"])
            if match is None:
                return None
            return (int(match[1] or 0) * 24 + int(match[2])) * 60 + int(match[3])
    return None
