"""Submitting jobs to Slurm through submitit."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

from salt_plugin.studies.arrays import Job
from salt_plugin.studies.batch_script import after_srun, before_srun, required
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.sbatch import flags_of, options_of, refused
from salt_plugin.studies.slurm_commands import (
    PATIENCE,
    SlurmError,
    call,
    cancel,
    commented,
    patiently,
)
from salt_plugin.studies.study import Study, Submission
from salt_plugin.studies.worker import work_in_job


def submit(
    study: Study,
    jobs: Sequence[Job],
    profiles: Mapping[str, ClusterConfig],
    accepted: Callable[[], None],
) -> list[Submission]:
    """Submits jobs and notes them in the study: all, or none. They are held until all are accepted.

    Args:
        study: The study, claimed.
        jobs: In an order in which each waits for earlier ones only.
        profiles: Of each stage.
        accepted: Called once all are accepted, before any begins.

    Raises:
        SlurmError: One is refused, and nothing is in the queue; or says what could not be removed.
    """
    found: list[Submission] = []
    before = _files(study)
    try:
        for job in jobs:
            waits = ",".join(job.waits).format(*(one.job for one in found))
            number = _submit(study, job, profiles[job.stage], waits)
            found.append(Submission(number, job.stage, [one.id for one in job.elements], waits))
        accepted()
        if begin := [one.job for one in found if not profiles[one.stage].sbatch.get("hold")]:
            call("scontrol", "release", *begin)
    except BaseException as error:
        try:
            cancel(strays(study))  # none is noted yet, and the id of one may not have arrived
        except SlurmError:
            held = " ".join(one.job for one in found)
            raise SlurmError(
                f"{error}; what was submitted before is held in the queue and could not be "
                f"cancelled: scancel {held}"
            ) from None
        finally:
            for one in sorted(_files(study) - before, reverse=True):
                one.rmdir() if one.is_dir() else one.unlink()
        raise
    for submission in found:
        study.add_submission(submission)
    # sbatch took these, but its answer was lost: they were submitted again, and are held.
    cancel(strays(study))
    return found


def _files(study: Study) -> set[Path]:
    return {*study.root.glob(study.jobs.name), *study.jobs.glob("**/*")}


def strays(study: Study) -> list[str]:
    """Returns jobs of a study that wait or run without being noted: their launch was killed."""
    noted = {submission.job for submission in study.submissions()}
    return [job for job in commented(str(study.root)) if job not in noted]


def _submit(study: Study, job: Job, profile: ClusterConfig, waits: str) -> str:
    """Returns the id of a job that Slurm has accepted."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    # What srun starts runs outside of a container, where Slurm's commands are.
    outer = [sys.executable] if profile.container else profile.command
    executor = SlurmExecutor(study.jobs / job.stage, python=shlex.join(outer))
    programs = {outer[0]: "the Python that launched"}
    if profile.container:
        programs[shlex.split(profile.container)[0]] = "cluster.container"
    elif profile.python:
        programs[outer[0]] = "cluster.python"
    folders = [study.root / one.id for one in job.elements]
    exports = {
        "PYTHONPATH": f"{shlex.quote(str(study.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "OMP_NUM_THREADS": f"${{OMP_NUM_THREADS:-{profile.cpus_per_task}}}",
        PATIENCE: profile.patience,
        "PYTHONSAFEPATH": 1,  # as in `with_code`
    }
    additional: dict[str, Any] = options_of(profile) | {
        "comment": str(study.root),
        "signal": f"USR2@{profile.signal_delay_s}",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "hold": True,
    }
    executor.update_parameters(
        job_name=f"{study.pipeline().name}:{job.stage}",
        time=profile.minutes,  # submitit's own handler of signals goes by it
        wckey=None,  # its default is refused where these are enforced
        array_parallelism=profile.array_parallelism,
        setup=[
            *before_srun(profile.setup, folders),
            *required(programs, profile.nodes),
            *(f"export {variable}={value}" for variable, value in exports.items()),
        ],
        teardown=[after_srun(executor.python)],
        srun_args=[
            "--export=ALL",
            f"--cpus-per-task={profile.cpus_per_task}",  # not inherited since Slurm 22.05
            "--kill-on-bad-exit=1",
            *profile.srun_args,
        ],
        additional_parameters=additional | ({"dependency": waits} if waits else {}),
    )
    count = len(job.elements)

    def sent() -> str:
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what it raises as well
                work = partial(work_in_job, study.root, prefix=profile.command)
                first = executor.map_array(work, job.elements)[0]
        except FailedJobError as error:
            raise refused(job.stage, str(error), flags_of(profile, count)) from None
        return str(first.job_id).partition("_")[0]

    return patiently(sent)
