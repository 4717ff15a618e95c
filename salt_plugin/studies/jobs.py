"""Elements into jobs: arrays, and what each waits for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PipelineConfig

AFTER_OK, AFTER_CORR, AFTER_ANY = "afterok", "aftercorr", "afterany"


class Wait(NamedTuple):
    """What a job waits for.

    Attributes:
        kind: As Slurm calls it.
        on: Number of a job of the same submission, or the id of an earlier one.
        place: Of the element in that job; None: of all of them.
    """

    kind: str
    on: int | str
    place: int | None = None


class Job(NamedTuple):
    """Elements of a stage that wait for the same; of more than one, an array.

    Attributes:
        stage: The stage.
        elements: In the order of the array.
        waits: For all of these.
    """

    stage: str
    elements: list[Element]
    waits: list[Wait]


def jobs_of(
    config: PipelineConfig,
    elements: Sequence[Element],
    selected: Collection[str],
    active: Mapping[str, str],
) -> list[Job]:
    """Returns the jobs that run some elements.

    An array of which each element is based on one of another array, and no two on the same, waits
    by `aftercorr`; with several on one, that would hold the wrong ones, so each gets an array.

    Args:
        config: The pipeline.
        elements: All.
        selected: Ids of those to be run; what they are based on is finished, active or among them.
        active: Jobs of elements that wait or run already.
    """
    jobs: list[Job] = []
    place: dict[str, Wait] = {one: Wait(AFTER_OK, job) for one, job in active.items()}
    for stage, settings in config.stages.items():
        mine = [one for one in elements if one.stage == stage and one.id in selected]
        by_parent: dict[str | None, list[Element]] = {}
        for one in mine:
            base = one.parent if one.parent in place else None  # the others are finished
            by_parent.setdefault(base, []).append(one)
        ended = _waits_for_end(settings.after, elements, place)
        first_new = len(jobs)
        for waits, group in _grouped(by_parent, jobs, place):
            jobs.append(Job(stage, group, [*waits, *ended]))
        for number, job in enumerate(jobs[first_new:], first_new):
            alone = len(job.elements) == 1
            for index, one in enumerate(job.elements):
                place[one.id] = Wait(AFTER_OK, number, None if alone else index)
    return jobs


def _grouped(
    by_parent: Mapping[str | None, list[Element]], jobs: Sequence[Job], place: Mapping[str, Wait]
) -> list[tuple[list[Wait], list[Element]]]:
    found: list[tuple[list[Wait], list[Element]]] = []
    left = dict(by_parent)
    for number, job in enumerate(jobs):
        based = [left.get(one.id, []) for one in job.elements]
        if len(job.elements) > 1 and all(len(one) == 1 for one in based):
            found.append(([Wait(AFTER_CORR, number)], [one[0] for one in based]))
            for one in job.elements:
                del left[one.id]
    for parent, group in left.items():
        found.append(([place[parent]] if parent is not None else [], group))
    return found


def _waits_for_end(
    stages: Sequence[str], elements: Sequence[Element], place: Mapping[str, Wait]
) -> list[Wait]:
    """Returns waits for whole jobs: an array is named once."""
    ids = [one.id for one in elements if one.stage in stages and one.id in place]
    waits = [place[one] for one in ids]
    return [Wait(AFTER_ANY, on) for on in dict.fromkeys(wait.on for wait in waits)]


def dependency(waits: Sequence[Wait], names: Mapping[int, str]) -> str:
    """Returns what sbatch takes as `--dependency`.

    Args:
        waits: Of the job.
        names: Ids of the jobs submitted so far, by their numbers.
    """
    parts: dict[str, list[str]] = {}
    for wait in waits:
        job = names[wait.on] if isinstance(wait.on, int) else wait.on
        part = job if wait.place is None else f"{job}_{wait.place}"
        parts.setdefault(wait.kind, []).append(part)
    return ",".join(f"{kind}:{':'.join(ids)}" for kind, ids in parts.items())
