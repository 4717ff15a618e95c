"""A study on this machine: in the foreground, or in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence

from salt_plugin.comparison.runner import Command, Job, Reporter, run_jobs
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PipelineConfig
from salt_plugin.studies.slurm import work_of
from salt_plugin.studies.study import Study
from salt_plugin.studies.worker import (
    ElementFailedError,
    InterruptedElementError,
    arguments_of,
    work_once,
)

Runner = Callable[[Sequence[Element]], dict[str, str]]


def run_here(
    study: Study,
    config: PipelineConfig,
    elements: Sequence[Element],
    selected: Collection[str],
    profile: ClusterConfig,
    reporter: Reporter,
) -> dict[str, str]:
    """Runs elements in processes, stage by stage.

    Returns:
        The reason of each element that failed, or that is based on one.
    """
    cwd = study.stored()["cwd"]

    def run(ready: Sequence[Element]) -> dict[str, str]:
        jobs = []
        for one in ready:
            files = study.element(one)
            arguments = [sys.executable, *arguments_of(work_of(one, study, profile, cwd))]
            jobs.append(Job(one.id, [Command("at work", arguments, files.finished)], files.log()))
        return run_jobs(jobs, profile.array_parallelism, reporter)

    return _by_stage(study, config, elements, selected, run, reporter)


def run_in_process(
    study: Study,
    config: PipelineConfig,
    elements: Sequence[Element],
    selected: Collection[str],
    profile: ClusterConfig,
    reporter: Reporter,
) -> dict[str, str]:
    """Runs elements one after the other in this process, for a debugger; returns as `run_here`."""
    cwd = study.stored()["cwd"]

    def run(ready: Sequence[Element]) -> dict[str, str]:
        failed = {}
        for one in ready:
            try:
                work_once(work_of(one, study, profile, cwd), in_process=True)
                reporter.finished(one.id, 0.0)
            except (ElementFailedError, InterruptedElementError) as error:
                failed[one.id] = str(error) or "see above"
                reporter.failed(one.id, failed[one.id])
        return failed

    return _by_stage(study, config, elements, selected, run, reporter)


def _by_stage(
    study: Study,
    config: PipelineConfig,
    elements: Sequence[Element],
    selected: Collection[str],
    run: Runner,
    reporter: Reporter,
) -> dict[str, str]:
    failed: dict[str, str] = {}
    by_id = {one.id: one for one in elements}
    for stage in config.stages:
        ready = []
        for one in elements:
            if one.stage != stage or one.id not in selected:
                continue
            if one.parent is not None and not study.finished(by_id[one.parent]):
                failed[one.id] = f"needs {one.parent}, which is not finished"
                reporter.failed(one.id, failed[one.id])
            else:
                ready.append(one)
        failed |= run(ready)
    return failed
