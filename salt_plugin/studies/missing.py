"""What is missing of a study, and running it, on Slurm or on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from salt_plugin.errors import ConfigError
from salt_plugin.report.study_tables import Lines
from salt_plugin.studies.arrays import jobs_of
from salt_plugin.studies.attempts import FAILED, FINISHED
from salt_plugin.studies.cluster import SLURM, ClusterConfig, profile_from
from salt_plugin.studies.elements import Element
from salt_plugin.studies.local import run_here
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig
from salt_plugin.studies.sbatch import check_jobs, with_environment
from salt_plugin.studies.slurm_commands import SlurmError, cancel
from salt_plugin.studies.states import ACTIVE, LOST, PENDING, UNKNOWN, Row, rows_of
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


def run_missing(study: Study, only_failed: bool, lines: Lines) -> dict[str, str]:
    """Submits what is missing, or runs it here, as the study was launched.

    Args:
        study: The study, claimed and written.
        only_failed: Only what has failed, and what is based on that.
        lines: A line for each job, or for each element as it starts and ends.

    Returns:
        The reason of each element that failed here; nothing of a cluster.

    Raises:
        SlurmError: The cluster refuses.
    """
    config, elements = study.pipeline(), study.elements()
    cluster = with_environment(study.cluster())
    listed, remarks = rows_of(study)
    rows = {row.id: row for row in listed}
    on_slurm = cluster.kind == SLURM
    if any(row.state == UNKNOWN for row in listed):
        # What is in the queue must not be submitted twice.
        raise SlurmError(f"{'; '.join(remarks)}: ask again where it can be")
    if on_slurm and (found := strays(study)):
        raise SlurmError(
            f"jobs of this study that a killed launch did not note are in the queue: "
            f"{', '.join(found)}; salt cancel {study.root} ends them, then launch again"
        )
    if not on_slurm and any(row.state in ACTIVE and row.job for row in listed):
        raise SlurmError(
            f"jobs of this study wait or run on Slurm, and cluster={cluster.kind} would run it "
            f"here: give the profile that it was launched with, or salt cancel {study.root} first"
        )
    selected = missing(elements, rows, only_failed)
    lines.total = len(selected)
    if not selected:
        return {}
    reports = [one for one in elements if config.stages[one.stage].command == REPORT]
    selected |= {one.id for one in reports}

    def replace_reports() -> None:
        for one in reports:
            row = rows[one.id]
            if row.state == PENDING and row.job is not None:
                cancel([row.job])
            study.element(one).finished.unlink(missing_ok=True)

    if not on_slurm:
        replace_reports()
        return run_here(study, selected, lines)
    active = {
        row.id: row.job
        for row in listed
        if row.state in ACTIVE and row.job is not None and row.id not in selected
    }
    profiles = profiles_of(config, cluster)
    jobs = jobs_of(config, elements, selected, active)
    check_jobs(jobs, profiles)
    for submission in submit(study, jobs, profiles, replace_reports):
        lines.submitted(submission)
    return {}


def missing(elements: Sequence[Element], rows: dict[str, Row], only_failed: bool) -> set[str]:
    """Returns the ids of elements to be run: neither finished nor active, with all they need."""
    chosen: set[str] = set()
    for one in elements:
        state, parent = rows[one.id].state, one.parent
        ready = parent is None or parent in chosen or rows[parent].state in (FINISHED, *ACTIVE)
        wanted = not only_failed or state in (FAILED, LOST) or parent in chosen
        if state not in (FINISHED, *ACTIVE) and ready and wanted:
            chosen.add(one.id)
    return chosen
