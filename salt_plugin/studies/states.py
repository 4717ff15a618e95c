"""How the elements of a study are: from their files, and from Slurm where it runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.studies import queue
from salt_plugin.studies.attempts import FAILED, FINISHED, INTERRUPTED, STARTED
from salt_plugin.studies.elements import Element
from salt_plugin.studies.queue import JobState
from salt_plugin.studies.slurm import log_of
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
    jobs = study.job_of()
    asked = sorted({job.partition("_")[0] for job in jobs.values()}, key=int)
    known = queue.states(asked)
    at_work = study.worked_on_by() is not None
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
    of_slurm = known.get(job) if job is not None else None
    last = next((one for one in reversed(events) if one["event"] != STARTED), None)
    if files.finished.is_file():
        state, reason = FINISHED, ""
    elif of_slurm is not None:
        state, reason = _by_slurm(of_slurm, last, bool(events))
    elif job is not None:
        state, reason = _forgotten(events, last)
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


def _by_slurm(found: JobState, last: dict[str, Any] | None, started: bool) -> tuple[str, str]:
    if found.state in queue.RUNNING:
        return RUNNING, ""
    if found.state in queue.PENDING:
        if last is not None and last["event"] == INTERRUPTED:
            return PENDING, f"{found.reason}; before: {last['reason']}"
        return PENDING, found.reason
    if found.state == "CANCELLED":
        never = "Dependency" in found.reason
        return CANCELLED, "what it needs was not finished" if never else "by scancel"
    if last is not None and last["event"] == FAILED:
        return FAILED, last["reason"]
    if started:
        return FAILED, f"Slurm says {found.state} {found.reason}".strip()
    return FAILED, (
        f"Slurm says {found.state} {found.reason}: it never started. Do the nodes see the study's "
        "folder, and its Python?"
    )


def _forgotten(events: list[dict[str, Any]], last: dict[str, Any] | None) -> tuple[str, str]:
    """Returns the state of an element whose job Slurm does not know any more."""
    if last is not None and events[-1] is last:
        return last["event"], last.get("reason", "")
    return LOST, "Slurm does not know its job any more; salt retry submits it again"


def _log(study: Study, element: Element, job: str | None) -> Path | None:
    log = study.element(element).log()
    if log.is_file():
        return log
    early = log_of(study.root, element.stage, job) if job else None
    return early if early is not None and early.is_file() else None


def counts(rows: list[Row]) -> dict[str, int]:
    """Returns how many elements are in each state."""
    return {state: n for state in STATES if (n := sum(row.state == state for row in rows))}
