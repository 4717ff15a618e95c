"""Submitting jobs to Slurm through submitit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.studies import queue
from salt_plugin.studies.batch_script import after_srun, before_srun
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.elements import Element
from salt_plugin.studies.jobs import Job, dependency
from salt_plugin.studies.pipeline import TRAIN
from salt_plugin.studies.queue import SlurmError
from salt_plugin.studies.study import Study, Submission
from salt_plugin.studies.worker import Work, work_in_job

# Options of sbatch that tell whether a job can run at all.
TESTED = (
    "partition",
    "account",
    "qos",
    "constraint",
    "nodes",
    "ntasks_per_node",
    "gpus_per_node",
    "cpus_per_task",
    "mem",
    "time",
)


def check_jobs(jobs: Sequence[Job], profiles: Mapping[str, ClusterConfig]) -> None:
    """Finds what the cluster would refuse, before anything is submitted.

    Raises:
        SlurmError: Names the stage and the limit, or what Slurm says.
    """
    limits = queue.limits()
    for job in jobs:
        most = limits.get("MaxArraySize")
        if most is not None and len(job.elements) > most:
            raise SlurmError(
                f"stage {job.stage}: an array of {len(job.elements):,} elements exceeds the "
                f"cluster's MaxArraySize={most:,}; split the sweep into several stages or studies"
            )
    wanted = sum(len(job.elements) for job in jobs)
    account = next(iter(profiles.values())).account
    for name, limit in (
        ("MaxJobCount", limits.get("MaxJobCount")),
        ("MaxSubmitJobs", queue.submit_limit(account)),
    ):
        queued = queue.queued_of_user()
        if limit is not None and wanted + queued > limit:
            raise SlurmError(
                f"{wanted:,} elements with {queued:,} jobs of yours in the queue exceed "
                f"{name}={limit:,}; launch fewer at a time"
            )
    for stage in dict.fromkeys(job.stage for job in jobs):
        _test(stage, profiles[stage])


def submit(
    study: Study,
    jobs: Sequence[Job],
    profiles: Mapping[str, ClusterConfig],
    name: str,
    told: Callable[[Submission], None],
) -> None:
    """Submits jobs, and notes each in the study.

    Args:
        study: The study, claimed.
        jobs: In an order in which each waits for earlier ones only.
        profiles: Of each stage.
        name: Of the study.
        told: Called with each job.

    Raises:
        SlurmError: sbatch refused one; those before it are submitted and noted.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    cwd = str(study.stored()["cwd"])
    ids: dict[int, str] = {}
    for number, job in enumerate(jobs):
        profile = profiles[job.stage]
        waits = dependency(job.waits, ids)
        executor = SlurmExecutor(folder=study.jobs / job.stage)
        parameters = _options(profile) | _submission(study, profile)
        folders = [study.root / one.id for one in job.elements]
        parameters["setup"] = before_srun(profile.setup, folders) + parameters["setup"]
        parameters["teardown"] = [after_srun(executor.python)]
        if waits:
            parameters["dependency"] = waits
        executor.update_parameters(job_name=f"{name}:{job.stage}", **parameters)
        works = [work_of(one, study, profile, cwd) for one in job.elements]
        try:
            submitted = executor.map_array(work_in_job, works)
        except FailedJobError as error:
            said = str(error).strip().splitlines()[-1]
            raise SlurmError(
                f"stage {job.stage}: {said}. Jobs submitted before it go on: salt status, or salt "
                "cancel"
            ) from None
        ids[number] = submitted[0].job_id.partition("_")[0]
        elements = [one.id for one in job.elements]
        submission = Submission(ids[number], job.stage, elements, waits)
        study.add_submission(submission)
        told(submission)


def strays(study: Study) -> list[str]:
    """Returns jobs of a study that wait or run without being noted: their launch was killed."""
    noted = {submission.job for submission in study.submissions()}
    return [job for job in queue.commented(str(study.root)) if job not in noted]


def work_of(element: Element, study: Study, profile: ClusterConfig, cwd: str) -> Work:
    """Returns what a process of an element runs."""
    python = shlex.split(profile.python) if profile.python else [sys.executable]
    return Work(
        folder=str(study.root / element.id),
        prefix=[*shlex.split(profile.container or ""), *python],
        module=element.module,
        arguments=element.arguments,
        cwd=cwd,
        code=str(study.code),
        keep_output=element.arguments[0] != TRAIN,
    )


def _options(profile: ClusterConfig) -> dict[str, Any]:
    """Returns the options of sbatch under submitit's names."""
    options = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "nodes": profile.nodes,
        "ntasks_per_node": profile.tasks_per_node,
        "gpus_per_node": profile.gpus_per_node or None,
        "cpus_per_task": profile.cpus_per_task,
        "mem": profile.mem,
        "time": profile.minutes,
    }
    return {key: value for key, value in options.items() if value is not None}


def _submission(study: Study, profile: ClusterConfig) -> dict[str, Any]:
    code = shlex.quote(str(study.code))
    return {
        "comment": str(study.root),
        "array_parallelism": profile.array_parallelism,
        "signal_delay_s": profile.signal_delay_s,
        # The study's own code, from the first import on.
        "setup": [
            f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}",
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{profile.cpus_per_task}}}",
        ],
        "srun_args": [
            f"--cpus-per-task={profile.cpus_per_task}",  # not inherited since Slurm 22.05
            "--kill-on-bad-exit=1",
            *profile.srun_args,
        ],
        "additional_parameters": {
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            **{key.replace("_", "-"): value for key, value in profile.sbatch.items()},
        },
    }


def _test(stage: str, profile: ClusterConfig) -> None:
    most = queue.partition_minutes(profile.partition)
    if most is not None and profile.minutes > most:
        raise SlurmError(
            f"stage {stage}: time={profile.time} exceeds the {most} min of the partition; give "
            "less: a job that reaches its limit saves and is queued again"
        )
    options = {key: value for key, value in _options(profile).items() if key in TESTED}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    try:
        queue.call("sbatch", "--test-only", *flags, "--wrap=true")
    except SlurmError as error:
        given = " ".join(flags)
        raise SlurmError(f"stage {stage}: {error}; asked for {given}{_hint(str(error))}") from None


def _hint(said: str) -> str:
    """Returns what would do, where Slurm tells."""
    if "partition" in said.lower() and "account" not in said.lower():
        names = queue.call("sinfo", "-h", "-o", "%R").split()
        return f"; partitions here: {', '.join(dict.fromkeys(names))}"
    if "node configuration" in said:
        rows = queue.call(
            "sinfo", "-h", "-e", "-o", "%R: %D nodes, %c CPUs, %m MB, %G"
        ).splitlines()
        return f"; there are {'; '.join(dict.fromkeys(row.strip() for row in rows))}"
    return ""


def log_of(study: Path, stage: str, job: str) -> Path:
    """Returns where submitit leaves what a job says before its element starts."""
    return study / "jobs" / stage / f"{job}_0_log.err"
