"""How the elements of a study are: by their files, and by Slurm where it runs them.

And how the stages are of a run that belongs to no study.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from salt_plugin.config import registry
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies import slurm_commands
from salt_plugin.studies.attempts import FAILED, FINISHED, INTERRUPTED, ElementDirectory
from salt_plugin.studies.slurm_commands import JobState
from salt_plugin.studies.study import Study

# States of an element, beside those of its attempts.
WAITING, PENDING, RUNNING = "waiting", "pending", "running"
CANCELLED, LOST, UNKNOWN = "cancelled", "lost", "unknown"
STATES = (FINISHED, RUNNING, PENDING, WAITING, FAILED, CANCELLED, INTERRUPTED, LOST, UNKNOWN)
ACTIVE = (RUNNING, PENDING)


class Row(NamedTuple):
    """An element as `salt status` shows it.

    Attributes:
        stage: Its stage.
        element: Its name.
        state: One of `STATES`.
        step: The last one, None before the first.
        loss: Of that step.
        flops: Spent by all its stages.
        restarts: How often it was started again.
        reason: Why it waits or is over.
        job: Its last job.
        log: Where it writes.
    """

    stage: str
    element: str
    state: str
    step: int | None
    loss: float | None
    flops: int | None
    restarts: int = 0
    reason: str = ""
    job: str | None = None
    log: str | None = None

    @property
    def id(self) -> str:
        """Stage and name."""
        return f"{self.stage}/{self.element}"


def rows_of(study: Study) -> tuple[list[Row], list[str]]:
    """Returns a row for each element, and remarks.

    Raises:
        ConfigError: The folder holds no study.
    """
    stored = study.stored()
    # Studies of earlier versions have none.
    slurm_commands.patience = stored["cluster"].get("patience", slurm_commands.patience)
    jobs = study.last_jobs()
    asked = sorted({job.partition("_")[0] for job in jobs.values()}, key=int)
    known, remarks, complete = slurm_commands.job_states(asked)
    at_work = study.worked_on_by() not in (None, os.getpid())
    rows: dict[str, Row] = {}
    for element in study.elements():
        files, job = study.element(element), jobs.get(element.id)
        early = study.early_log(element.stage, job or "none")
        found = known.get(job or "none")
        state, reason = _state(files, job, found, early, complete, at_work)
        if state == CANCELLED and element.parent is not None:
            parent = rows[element.parent]
            if parent.state not in (FINISHED, *ACTIVE):
                reason = f"needs {parent.id}, which is {parent.state}"
        rows[element.id] = Row(
            element.stage,
            element.name,
            state,
            **files.progress(),
            restarts=max(0, len(files.starts()) - 1),
            reason=reason,
            job=job,
            log=next((str(log) for log in (files.log(), early) if log.is_file()), None),
        )
    return list(rows.values()), remarks


def _state(
    files: ElementDirectory,
    job: str | None,
    found: JobState | None,
    early: Path,
    complete: bool,
    at_work: bool,
) -> tuple[str, str]:
    """Returns the state of an element, and the reason.

    Args:
        files: The element.
        job: Its last job, if it had one.
        found: What Slurm says of that.
        early: What the job said before the element started.
        complete: Whether a job of which Slurm says nothing is not in the queue.
        at_work: Whether a process of this machine runs the study.
    """
    if files.finished.is_file():
        return FINISHED, ""
    # Of a job that Slurm knows, not those of earlier jobs.
    events = [one for one in files.events() if found is None or one.get("job") == job]
    last = events[-1]["event"] if events else None
    failures = [one["reason"] for one in events if one["event"] == FAILED]
    stops = [one["reason"] for one in events if one["event"] == INTERRUPTED]
    if found is None:
        # What was interrupted may wait in a queue that cannot be asked.
        if last == FAILED or (last == INTERRUPTED and (complete or job is None)):
            return str(last), events[-1]["reason"]
        if job is not None and complete:
            return LOST, "Slurm does not know its job any more; salt retry submits it again"
        if job is not None:
            return UNKNOWN, "Slurm cannot be asked here"
        if at_work:
            return (RUNNING if events else WAITING), ""
        return (INTERRUPTED, "its process is gone") if events else (WAITING, "not submitted")
    state, reason = found
    before = f"before: {stops[-1]}" if stops else ""
    if state in slurm_commands.RUNNING and not (state == "COMPLETING" and failures):
        return RUNNING, before
    if state in slurm_commands.PENDING:
        return PENDING, "; ".join(filter(None, [reason, before]))
    if state == "CANCELLED":
        never = "DependencyNeverSatisfied" in reason
        return CANCELLED, "what it needs was not finished" if never else "by scancel"
    if failures:
        return FAILED, failures[-1]
    said = f"Slurm says {state} {reason}".strip()
    if last == INTERRUPTED:
        return FAILED, f"{stops[-1]}, and it was not queued again ({said}); salt retry"
    if last is not None:
        return FAILED, f"{said}; salt retry goes on from its last checkpoint"
    # submitit's file of a process that has returned, or raised an error.
    if early.with_name(f"{job}_0_result.pkl").is_file():
        return LOST, "its folder is gone; salt retry runs it again"
    return FAILED, f"{said}: it never started. Do the nodes see the study's folder, and its Python?"


def rows_of_run(run: RunDirectory) -> list[Row]:
    """Returns a row for each stage of a run.

    Raises:
        ConfigError: The folder holds no run.
    """
    method = run.stored_config()["method"]
    stages = [spec.result for spec in registry.get(method["name"]).stages]
    if (method.get("teacher") or {}).get("path"):
        stages = stages[-1:]
    active = (RUNNING, "") if run.at_work else (INTERRUPTED, "no process works on it")
    rows: list[Row] = []
    for stage in stages:
        # After its last stage a run draws figures, probes itself and writes its summary.
        if run.finished or (stage != stages[-1] and run.stage(stage).finished):
            state, reason = FINISHED, ""
        else:
            state, reason = active
            active = (WAITING, "")
        progress = ElementDirectory(run.root).progress(stage)
        rows.append(Row(stage, run.root.name, state, **progress, reason=reason))
    return rows


def counts(rows: list[Row]) -> dict[str, int]:
    """Returns how many elements are in each state."""
    return {state: n for state in STATES if (n := sum(row.state == state for row in rows))}
