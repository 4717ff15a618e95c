"""What is missing of a study, and running it, on Slurm or on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from salt_plugin.errors import ConfigError
from salt_plugin.report.study_tables import Lines
from salt_plugin.studies.arrays import Job, jobs_of
from salt_plugin.studies.attempts import FAILED, FINISHED
from salt_plugin.studies.cluster import SLURM, ClusterConfig, profile_from
from salt_plugin.studies.elements import Element
from salt_plugin.studies.local import run_here
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig
from salt_plugin.studies.sbatch import check_jobs, with_environment
from salt_plugin.studies.slurm_commands import SlurmError, cancel
from salt_plugin.studies.states import ACTIVE, LOST, UNKNOWN, rows_of
from salt_plugin.studies.study import Study
from salt_plugin.studies.submission import strays, submit


def profiles_of(config: PipelineConfig, cluster: ClusterConfig) -> dict[str, ClusterConfig]:
    """Returns the profile of each stage.

    Raises:
        ConfigError: Its resources cannot work.
    """
    found = {}
    for stage, settings in config.stages.items():
        key = f"pipeline.stages.{stage}.resources."
        if "kind" in settings.resources:
            raise ConfigError(f"{key}kind: all stages run in one place; give cluster=...")
        # Only training is spread over processes; a report needs no GPU.
        few: dict[str, Any] = {}
        if settings.command != TRAIN:
            gpus = cluster.gpus_up_to(int(settings.command != REPORT))
            few = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus}
        found[stage] = profile_from(asdict(cluster), few, settings.resources, key=key)
    return found


def missing_jobs(study: Study, only_failed: bool = False) -> tuple[list[Job], list[str]]:
    """Returns the jobs that run what is missing of a study, and jobs of reports that they replace.

    Raises:
        SlurmError: What waits or runs on Slurm cannot be known, or would be run here as well.
    """
    config, cluster, elements = study.pipeline(), study.cluster(), study.elements()
    listed, remarks = rows_of(study)
    if any(row.state == UNKNOWN for row in listed):
        # What is in the queue must not be submitted twice.
        raise SlurmError(f"{'; '.join(remarks)}: ask again where it can be")
    active = {row.id: row.job for row in listed if row.state in ACTIVE and row.job is not None}
    if cluster.kind != SLURM and active:
        raise SlurmError(
            f"jobs of this study wait or run on Slurm, and cluster={cluster.kind} would run it "
            f"here: give the profile that it was launched with, or salt cancel {study.root} first"
        )
    states = {row.id: row.state for row in listed}
    chosen: set[str] = set()
    for one in elements:
        state, parent = states[one.id], one.parent
        ready = parent is None or parent in chosen or states[parent] in (FINISHED, *ACTIVE)
        wanted = not only_failed or state in (FAILED, LOST) or parent in chosen
        if state not in (FINISHED, *ACTIVE) and ready and wanted:
            chosen.add(one.id)
    if chosen:
        reports = [name for name, one in config.stages.items() if one.command == REPORT]
        chosen |= {one.id for one in elements if one.stage in reports}
    replaced = [active.pop(name) for name in chosen & active.keys()]
    return jobs_of(config, elements, chosen, active), replaced


def run_missing(
    study: Study,
    only_failed: bool,
    lines: Lines,
    ended: Callable[[Element], None] | None = None,
) -> dict[str, str]:
    """Writes the study, and submits what is missing of it, or runs it here.

    Args:
        study: The study, claimed.
        only_failed: Only what has failed, and what is based on that.
        lines: A line for each job, or for each element as it starts and ends.
        ended: Called with each element that was finished here.

    Returns:
        The reason of each element that failed here; nothing of a cluster.

    Raises:
        SlurmError: The cluster refuses.
    """
    config, cluster = study.pipeline(), with_environment(study.cluster())
    profiles = profiles_of(config, cluster)
    jobs, replaced = missing_jobs(study, only_failed)
    selected = {one.id for job in jobs for one in job.elements}
    lines.total = len(selected)

    def begin() -> None:
        study.write()
        cancel(replaced)
        for job in jobs:
            if config.stages[job.stage].command == REPORT:
                study.element(job.elements[0]).finished.unlink(missing_ok=True)

    if cluster.kind != SLURM or not jobs:
        begin()
        return run_here(study, selected, lines, ended)
    if found := strays(study):
        raise SlurmError(
            f"jobs of this study that a killed launch did not note are in the queue: "
            f"{', '.join(found)}; scancel {' '.join(found)} ends them, then launch again"
        )
    check_jobs(jobs, profiles)
    for submission in submit(study, jobs, profiles, begin):
        lines.submitted(submission)
    return {}
