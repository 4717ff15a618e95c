"""Elements into jobs: arrays, and what each waits for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PipelineConfig


class Job(NamedTuple):
    """Elements of a stage that wait for the same; of more than one, an array.

    Attributes:
        stage: The stage.
        elements: In the order of the array.
        waits: Dependencies as sbatch takes them; `{2}` stands for the id of the third job that is
            submitted with this one.
    """

    stage: str
    elements: list[Element]
    waits: list[str]


def jobs_of(
    config: PipelineConfig,
    elements: Sequence[Element],
    selected: Collection[str] | None = None,
    active: Mapping[str, str] | None = None,
) -> list[Job]:
    """Returns the jobs that run some elements.

    An array of which each element is based on one of another array, and no two on the same, waits
    by `aftercorr`; with several on one, that would hold the wrong ones, so each gets an array.

    Args:
        config: The pipeline.
        elements: All.
        selected: Ids of those to be run, by default of all; what they are based on is finished,
            active or among them.
        active: Jobs of elements that wait or run already.
    """
    jobs: list[Job] = []
    job_of = dict(active or {})
    for stage, settings in config.stages.items():
        after = [one.id for one in elements if one.stage in settings.after and one.id in job_of]
        # An array is named once, not each of its elements.
        arrays = dict.fromkeys(job_of[one].partition("_")[0] for one in after)
        left = {
            one.id: one
            for one in elements
            if one.stage == stage and (selected is None or one.id in selected)
        }
        while left:  # some are based on others of their stage
            ready = [one for one in left.values() if one.parent not in left]
            left = {name: one for name, one in left.items() if one.parent in left}
            new = _jobs_of(stage, ready, jobs, job_of)
            for number, job in enumerate(new, len(jobs)):
                job.waits.extend(f"afterany:{one}" for one in arrays)
                for index, one in enumerate(job.elements):
                    place = f"_{index}" if len(job.elements) > 1 else ""
                    job_of[one.id] = f"{{{number}}}{place}"
            jobs += new
    return jobs


def _jobs_of(
    stage: str, elements: Sequence[Element], jobs: Sequence[Job], job_of: Mapping[str, str]
) -> list[Job]:
    """Returns the jobs of elements of a stage, of which none is based on another."""
    by_parent: dict[str | None, list[Element]] = {}
    for one in elements:
        base = one.parent if one.parent in job_of else None  # the others are finished
        by_parent.setdefault(base, []).append(one)
    new: list[Job] = []
    for number, job in enumerate(jobs):
        based = [by_parent.get(one.id, []) for one in job.elements]
        if len(job.elements) > 1 and all(len(each) == 1 for each in based):
            new.append(Job(stage, [each[0] for each in based], [f"aftercorr:{{{number}}}"]))
            for one in job.elements:
                del by_parent[one.id]
    for parent, group in by_parent.items():
        new.append(Job(stage, group, [f"afterok:{job_of[parent]}"] if parent else []))
    return new
