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

from salt_plugin.studies import queue
from salt_plugin.studies.ask import PATIENCE, SlurmError, patiently
from salt_plugin.studies.batch_script import after_srun, before_srun
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.elements import Element
from salt_plugin.studies.jobs import Job, dependency
from salt_plugin.studies.pipeline import TRAIN
from salt_plugin.studies.sbatch import flags_of, options_of, refused
from salt_plugin.studies.study import Study, Submission
from salt_plugin.studies.worker import SAFE_PATH, Work, work_in_job

# A line of a job that tells why it ended before its element started.
SAID = "salt: "


def submit(
    study: Study,
    jobs: Sequence[Job],
    profiles: Mapping[str, ClusterConfig],
    name: str,
    accepted: Callable[[], None],
) -> list[Submission]:
    """Submits jobs and notes them in the study: all, or none. They are held until all are accepted.

    Args:
        study: The study, claimed.
        jobs: In an order in which each waits for earlier ones only.
        profiles: Of each stage.
        name: Of the study.
        accepted: Called once all are accepted, before any begins.

    Raises:
        SlurmError: One is refused, and nothing is in the queue; or says what could not be removed.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    cwd = str(study.stored()["cwd"])
    found: list[Submission] = []

    def sent(executor: SlurmExecutor, works: Sequence[Work], job: Job) -> str:
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what it raises as well
                first = executor.map_array(work_in_job, works)[0]
        except FailedJobError as error:
            flags = flags_of(profiles[job.stage], len(works))
            raise refused(job.stage, str(error), flags) from None
        return str(first.job_id).partition("_")[0]

    try:
        for job in jobs:
            profile = profiles[job.stage]
            waits = dependency(job.waits, {n: one.job for n, one in enumerate(found)})
            executor = SlurmExecutor(study.jobs / job.stage, python=shlex.join(_outer(profile)))
            parameters = _submission(study, profile, waits)
            folders = [study.root / one.id for one in job.elements]
            parameters["setup"] = before_srun(profile.setup, folders) + parameters["setup"]
            parameters["teardown"] = [after_srun(executor.python)]
            executor.update_parameters(job_name=f"{name}:{job.stage}", **parameters)
            works = [work_of(one, study, profile, cwd) for one in job.elements]
            number = patiently(partial(sent, executor, works, job))
            found.append(Submission(number, job.stage, [one.id for one in job.elements], waits))
        accepted()
        queue.release(one.job for one in found if not profiles[one.stage].sbatch.get("hold"))
    except BaseException as error:
        _withdraw(study, [one.job for one in found], error)
        raise
    for submission in found:
        study.add_submission(submission)
    # sbatch took these, but its answer was lost: they were submitted again, and are held.
    queue.cancel(strays(study))
    return found


def _withdraw(study: Study, jobs: Sequence[str], why: BaseException) -> None:
    try:
        queue.cancel(strays(study))  # none is noted yet; one of them may not have told its id
    except SlurmError:
        raise SlurmError(
            f"{why}; what was submitted before is held in the queue and could not be cancelled: "
            f"scancel {' '.join(jobs)}"
        ) from None


def strays(study: Study) -> list[str]:
    """Returns jobs of a study that wait or run without being noted: their launch was killed."""
    noted = {submission.job for submission in study.submissions()}
    return [job for job in queue.commented(str(study.root)) if job not in noted]


def work_of(element: Element, study: Study, profile: ClusterConfig, cwd: str) -> Work:
    """Returns what a process of an element runs."""
    return Work(
        folder=str(study.root / element.id),
        prefix=[*shlex.split(profile.container or ""), *_python(profile)],
        module=element.module,
        arguments=element.arguments,
        cwd=cwd,
        code=str(study.code),
        keep_output=element.arguments[0] != TRAIN,
    )


def _python(profile: ClusterConfig) -> list[str]:
    return shlex.split(profile.python) if profile.python else [sys.executable]


def _outer(profile: ClusterConfig) -> list[str]:
    """Returns the Python that srun starts: outside of a container, where Slurm's commands are."""
    return [sys.executable] if profile.container else _python(profile)


def _submission(study: Study, profile: ClusterConfig, waits: str) -> dict[str, Any]:
    code = shlex.quote(str(study.code))
    ours = {
        "comment": str(study.root),
        "signal": f"USR2@{profile.signal_delay_s}",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "hold": True,
    }
    return {
        "time": profile.minutes,  # submitit's own handler of signals goes by it
        "wckey": None,  # its default is refused where these are enforced
        "array_parallelism": profile.array_parallelism,
        # The study's own code, from the first import on.
        "setup": [
            f"export {PATIENCE}={profile.patience}",
            *_checks(profile),
            f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}",
            *(f"export {name}={value}" for name, value in SAFE_PATH.items()),
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{profile.cpus_per_task}}}",
        ],
        "srun_args": [
            "--export=ALL",
            f"--cpus-per-task={profile.cpus_per_task}",  # not inherited since Slurm 22.05
            "--kill-on-bad-exit=1",
            *profile.srun_args,
        ],
        "additional_parameters": {
            **options_of(profile),
            **ours,
            **({"dependency": waits} if waits else {}),
        },
    }


def _checks(profile: ClusterConfig) -> list[str]:
    """Returns lines of shell that end a job where a node has no Python or container."""
    python = "cluster.python" if profile.python else "the Python that launched"
    needed = {_outer(profile)[0]: "the Python that launched" if profile.container else python}
    if profile.container:
        needed[shlex.split(profile.container)[0]] = "cluster.container"
    lines = []
    for program, key in needed.items():
        mend = f"{program} ({key}): install it there, give another, or leave the node out "
        "with sbatch.exclude"
        line = (
            f"command -v {shlex.quote(program)} >/dev/null || "
            f'{{ echo "{SAID}$SLURMD_NODENAME has no" {shlex.quote(mend)} >&2; exit 127; }}'
        )
        if profile.nodes > 1:  # a script runs on the first node alone
            one_each = f"srun --export=ALL --ntasks={profile.nodes} --ntasks-per-node=1"
            line = f"{one_each} bash -c {shlex.quote(line)} || exit 127"
        lines.append(line)
    return lines


def log_of(study: Path, stage: str, job: str) -> Path:
    """Returns where submitit leaves what a job says before its element starts."""
    return study / "jobs" / stage / f"{job}_0_log.err"


def said_early(log: Path) -> str | None:
    """Returns why a job ended before its element started; None where its script does not say."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line[len(SAID) :] for line in reversed(lines) if line.startswith(SAID)), None)
