"""Running what is missing of a study, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from salt_plugin.studies import queue
from salt_plugin.studies.ask import SlurmError
from salt_plugin.studies.attempts import FAILED, FINISHED
from salt_plugin.studies.cluster import SLURM, ClusterConfig, completed, with_resources
from salt_plugin.studies.elements import Element
from salt_plugin.studies.here import Reporter, run_here
from salt_plugin.studies.jobs import Job, jobs_of
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig
from salt_plugin.studies.sbatch import check_jobs
from salt_plugin.studies.slurm import strays, submit
from salt_plugin.studies.states import ACTIVE, LOST, PENDING, UNKNOWN, Row, rows_of
from salt_plugin.studies.study import Study, Submission


class Told(Reporter, Protocol):
    """Told how it goes."""

    def submitted(self, submission: Submission) -> None:
        """A job was submitted."""


def profiles_of(config: PipelineConfig, cluster: ClusterConfig) -> dict[str, ClusterConfig]:
    """Returns the profile of each stage.

    Raises:
        ConfigError: Its resources cannot work.
    """
    found = {}
    for stage, settings in config.stages.items():
        # Only training is spread over processes; a report needs no GPU.
        few: dict[str, Any] = {}
        if settings.command != TRAIN:
            gpus = cluster.gpus_up_to(int(settings.command != REPORT))
            few = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus}
        found[stage] = with_resources(cluster, few | settings.resources, stage)
    return found


def stored_study(study: Study) -> tuple[PipelineConfig, ClusterConfig]:
    """Returns the pipeline and the profile that a study was launched with.

    Raises:
        ConfigError: The folder holds no study.
    """
    from salt_plugin.config.typed import typed

    stored = study.stored()
    pipeline: PipelineConfig = typed(PipelineConfig, stored["pipeline"], "pipeline.")
    return pipeline, completed(stored["cluster"])


def run_missing(
    study: Study,
    config: PipelineConfig,
    cluster: ClusterConfig,
    only_failed: bool,
    reporter: Callable[[int], Told],
) -> dict[str, str]:
    """Submits what is missing, or runs it here.

    Args:
        study: The study, claimed and written.
        config: The pipeline.
        cluster: Where to.
        only_failed: Only what has failed, and what is based on that.
        reporter: Given the number of elements, returns what is told.

    Returns:
        The reason of each element that failed here; nothing of a cluster.

    Raises:
        SlurmError: The cluster refuses.
    """
    elements = study.elements()
    before, remarks = rows_of(study)
    if any(row.state == UNKNOWN for row in before):
        # What is in the queue must not be submitted twice.
        raise SlurmError(f"{'; '.join(remarks)}: ask again where it can be")
    if cluster.kind == SLURM and (found := strays(study)):
        raise SlurmError(
            f"jobs of this study that a killed launch did not note are in the queue: "
            f"{', '.join(found)}; salt cancel {study.root} ends them, then launch again"
        )
    if cluster.kind != SLURM and any(row.state in ACTIVE and row.job for row in before):
        raise SlurmError(
            f"jobs of this study wait or run on Slurm, and cluster={cluster.kind} would run it "
            f"here: give the profile that it was launched with, or salt cancel {study.root} first"
        )
    rows = {row.id: row for row in before}
    selected = missing(elements, rows, only_failed)
    told = reporter(len(selected))
    if not selected:
        return {}
    again = [one for one in elements if config.stages[one.stage].command == REPORT]

    def replace() -> None:
        for one in again:
            row = rows[one.id]
            if row.state == PENDING and row.job is not None:
                queue.cancel([row.job])
            study.element(one).finished.unlink(missing_ok=True)

    selected |= {one.id for one in again}
    profiles = profiles_of(config, cluster)
    if cluster.kind == SLURM:
        active = {
            row.id: row.job
            for row in before
            if row.state in ACTIVE and row.job is not None and row.id not in selected
        }
        jobs = jobs_of(config, elements, selected, active)
        check_jobs(jobs, profiles)
        for submission in submit(study, jobs, profiles, config.name, replace):
            told.submitted(submission)
        return {}
    replace()
    return run_here(study, config, elements, selected, cluster, told)


def missing(
    elements: Sequence[Element], rows: dict[str, Row], only_failed: bool = False
) -> set[str]:
    """Returns the ids of elements to be run: neither finished nor active, with all they need."""
    chosen: set[str] = set()
    for one in elements:
        row = rows[one.id]
        if row.state == FINISHED or row.state in ACTIVE:
            continue
        based = one.parent is None or one.parent in chosen
        ready = based or rows[str(one.parent)].state in (FINISHED, *ACTIVE)
        wanted = not only_failed or row.state in (FAILED, LOST) or one.parent in chosen
        if ready and wanted:
            chosen.add(one.id)
    return chosen


def fresh_jobs(config: PipelineConfig, elements: Sequence[Element]) -> list[Job]:
    """Returns the jobs of a study of which nothing has run."""
    return jobs_of(config, elements, {one.id for one in elements}, {})
