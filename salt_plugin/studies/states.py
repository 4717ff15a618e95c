"""How the elements of a study are: from their files, and from Slurm where it runs them.

And how the stages of a run are that no study knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.config import registry
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies import ask, queue
from salt_plugin.studies.attempts import FAILED, FINISHED, INTERRUPTED, STARTED, ElementDirectory
from salt_plugin.studies.elements import Element
from salt_plugin.studies.queue import JobState
from salt_plugin.studies.slurm import log_of, said_early
from salt_plugin.studies.study import Study
from salt_plugin.studies.worker import work_in_job

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
    restarts: int
    reason: str
    job: str | None
    log: str | None

    @property
    def id(self) -> str:
        """Stage and name."""
        return f"{self.stage}/{self.element}"


def rows_of(study: Study) -> tuple[list[Row], list[str]]:
    """Returns a row for each element, and remarks.

    Raises:
        ConfigError: The folder holds no study.
    """
    elements = study.elements()
    # Studies of earlier versions have none.
    ask.patience = study.stored()["cluster"].get("patience", ask.patience)
    jobs = study.job_of()
    asked = sorted({job.partition("_")[0] for job in jobs.values()}, key=int)
    known = queue.states(asked)
    at_work = study.worked_on_by() not in (None, os.getpid())
    rows: list[Row] = []
    by_id: dict[str, Row] = {}
    for element in elements:
        job = jobs.get(element.id)
        row = _row(study, element, job, known.states, at_work)
        if row.state == LOST and not known.complete:
            row = row._replace(state=UNKNOWN, reason="Slurm cannot be asked here")
        if row.state == CANCELLED and element.parent is not None:
            parent = by_id[element.parent]
            if parent.state not in (FINISHED, *ACTIVE):
                row = row._replace(reason=f"needs {parent.id}, which is {parent.state}")
        rows.append(row)
        by_id[row.id] = row
    return rows, known.remarks


def _row(
    study: Study, element: Element, job: str | None, known: Mapping[str, JobState], at_work: bool
) -> Row:
    files = study.element(element)
    events = files.events()
    if files.finished.is_file():
        state, reason = FINISHED, ""
    elif job is not None and (of_slurm := known.get(job)) is not None:
        mine = [one for one in events if one.get("job") == job]  # not those of earlier jobs
        state, reason = _by_slurm(of_slurm, mine)
        if state == FAILED and (said := said_early(log_of(study.root, element.stage, job))):
            reason = said
        elif state == FAILED and not events and _has_run(study, element, job, of_slurm):
            state, reason = LOST, "its folder is gone; salt retry runs it again"
    elif job is not None:
        state, reason = _forgotten(events)
    elif not events:
        state, reason = WAITING, "" if at_work else "not submitted"
    elif events[-1]["event"] == STARTED:
        state, reason = (RUNNING, "") if at_work else (INTERRUPTED, "its process is gone")
    else:
        state, reason = events[-1]["event"], events[-1].get("reason", "")
    restarts = max(0, sum(one["event"] == STARTED for one in events) - 1)
    progress = files.progress()
    log = _log(study, element, job)
    return Row(
        element.stage,
        element.name,
        state,
        progress["step"],
        progress["loss"],
        progress["flops"],
        restarts,
        reason,
        job,
        str(log) if log else None,
    )


def _by_slurm(found: JobState, events: list[dict[str, Any]]) -> tuple[str, str]:
    """Returns the state of an element and why, from its job and the attempts of that job."""
    failure = next((one for one in reversed(events) if one["event"] == FAILED), None)
    stops = [one["reason"] for one in events if one["event"] == INTERRUPTED]
    before = f"before: {stops[-1]}" if stops else ""
    if found.state == "COMPLETING" and failure:
        return FAILED, failure["reason"]
    if found.state in queue.RUNNING:
        return RUNNING, before
    if found.state in queue.PENDING:
        return PENDING, "; ".join(filter(None, [found.reason, before]))
    if found.state == "CANCELLED":
        never = "DependencyNeverSatisfied" in found.reason
        return CANCELLED, "what it needs was not finished" if never else "by scancel"
    if failure:
        return FAILED, failure["reason"]
    said = f"Slurm says {found.state} {found.reason}".strip()
    if not events:
        return FAILED, (
            f"{said}: it never started. Do the nodes see the study's folder, and its Python?"
        )
    if events[-1]["event"] == INTERRUPTED:
        return FAILED, f"{events[-1]['reason']}, and it was not queued again ({said}); salt retry"
    return FAILED, f"{said}; salt retry goes on from its last checkpoint"


def _has_run(study: Study, element: Element, job: str, found: JobState) -> bool:
    """Tells whether a job has come as far as the folder of its element, which is not there now."""
    early = log_of(study.root, element.stage, job)
    # The traceback of one that failed.
    return found.state == "COMPLETED" or (
        early.is_file() and f"in {work_in_job.__name__}" in early.read_text(errors="replace")
    )


def _forgotten(events: list[dict[str, Any]]) -> tuple[str, str]:
    """Returns the state of an element whose job Slurm does not know any more."""
    if events and events[-1]["event"] != STARTED:
        return events[-1]["event"], events[-1].get("reason", "")
    return LOST, "Slurm does not know its job any more; salt retry submits it again"


def _log(study: Study, element: Element, job: str | None) -> Path | None:
    log = study.element(element).log()
    if log.is_file():
        return log
    early = log_of(study.root, element.stage, job) if job else None
    return early if early is not None and early.is_file() else None


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
        row = Row(
            stage, run.root.name, state, **progress, restarts=0, reason=reason, job=None, log=None
        )
        rows.append(row)
    return rows


def counts(rows: list[Row]) -> dict[str, int]:
    """Returns how many elements are in each state."""
    return {state: n for state in STATES if (n := sum(row.state == state for row in rows))}
