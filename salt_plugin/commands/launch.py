"""`salt launch`: a pipeline on a cluster, or on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from salt_plugin.config.yaml_file import read_changes
from salt_plugin.errors import SaltError
from salt_plugin.report.compare import Lines
from salt_plugin.report.console import console
from salt_plugin.report.study import jobs_table
from salt_plugin.studies.ask import SlurmError, call_once
from salt_plugin.studies.attempts import FINISHED
from salt_plugin.studies.check import check_configs, planned
from salt_plugin.studies.cluster import LOCAL, SLURM, ClusterConfig, cluster_config
from salt_plugin.studies.elements import Element, all_elements
from salt_plugin.studies.go import fresh_jobs, profiles_of, run_missing
from salt_plugin.studies.pipeline import PipelineConfig, pipeline_config
from salt_plugin.studies.sbatch import check_jobs, settled
from salt_plugin.studies.snapshot import run_kept_code
from salt_plugin.studies.states import ACTIVE, counts, rows_of
from salt_plugin.studies.study import Study, Submission
from salt_plugin.studies.undo import claimed


def main(arguments: list[str]) -> None:
    """Runs a pipeline, or what is missing of it.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A key cannot work, the cluster refuses, or an element failed on this machine.
    """
    given = _parser().parse_intermixed_args(arguments)
    changes, cluster = settings_of(given.changes)
    config = pipeline_config(given.name, changes)
    study = Study((given.out or Path("runs") / config.name).expanduser().absolute())
    run_kept_code(study.code, "launch", arguments)
    profile = profile_of(*cluster)
    profiles = profiles_of(config, profile)
    elements = all_elements(config, study.root)
    study.check(elements)
    composed = check_configs(elements)
    if given.dry_run:
        _print_plan(config, elements, profiles)
        ask_slurm(config, elements, profile)
        return
    with claimed(study, elements):
        study.write(config, profile, elements, composed)
        tell_failures(run_study(study, config, profile))


def run_study(
    study: Study, config: PipelineConfig, cluster: ClusterConfig, only_failed: bool = False
) -> dict[str, str]:
    """Runs what is missing, and says where to look.

    Returns:
        The reason of each element that failed on this machine.

    Raises:
        SaltError: The cluster refuses, or the command was stopped.
    """
    before = signal.signal(signal.SIGTERM, _stop)
    lines = Submitting()
    try:
        with lines:
            failed = run_missing(study, config, cluster, only_failed, lines.of)
    except KeyboardInterrupt:
        raise SaltError(f"stopped; {_progress(study)}; the same command goes on") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    console(stderr=True).print(f"{_progress(study)}; salt status {study.root}", soft_wrap=True)
    return failed


def ask_slurm(config: PipelineConfig, elements: Sequence[Element], profile: ClusterConfig) -> None:
    """Asks Slurm, where it is to run a study, whether it would take the jobs.

    Raises:
        SlurmError: It would not.
    """
    if profile.kind != SLURM:
        return
    try:
        call_once("sinfo", "-h", "-o", "%R")
    except SlurmError as error:
        print(f"Slurm was not asked: {error}", file=sys.stderr)
        return
    check_jobs(fresh_jobs(config, elements), profiles_of(config, profile))
    print("Slurm would take all jobs", file=sys.stderr)


def tell_failures(failed: Mapping[str, str]) -> None:
    """Raises what has failed.

    Raises:
        SaltError: Something has.
    """
    if failed:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        raise SaltError(f"{len(failed)} of the elements failed; salt retry goes on:{listed}")


def _progress(study: Study) -> str:
    found = counts(rows_of(study)[0])
    active = sum(found.get(state, 0) for state in ACTIVE)
    waits = f", {active} wait or run as they were submitted" if active else ""
    return f"{found.get(FINISHED, 0)} of {sum(found.values())} elements are finished{waits}"


class Submitting(Lines):
    """Lines for elements that run here, and for jobs that are submitted."""

    def __init__(self) -> None:
        super().__init__(0)

    def of(self, total: int) -> Submitting:
        """Sets how many elements there are to come."""
        self.total = total
        return self

    def submitted(self, submission: Submission) -> None:
        """Says that a job was submitted."""
        many = len(submission.elements)
        what = f"an array of {many}" if many > 1 else submission.elements[0]
        waits = f", {submission.dependency}" if submission.dependency else ""
        self._say(f"{submission.stage}: job {submission.job}, {what}{waits}")


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def settings_of(changes: Sequence[str]) -> tuple[list[str], tuple[str, list[str]]]:
    """Returns the changes that are not of the cluster; the name of the profile, and its changes."""
    name, rest, of_cluster = LOCAL, [], []
    for change in changes:
        key, _, value = change.partition("=")
        if key == "cluster":
            name = value
        elif key.startswith("cluster."):
            of_cluster.append(change.removeprefix("cluster."))
        else:
            rest.append(change)
    return rest, (name, of_cluster)


def profile_of(name: str, changes: Sequence[str], **more: object) -> ClusterConfig:
    """Returns a profile with changes, with further keys that are not None, and settled.

    Raises:
        ConfigError: There is no such profile, or a key or value cannot work.
    """
    given = {key: value for key, value in more.items() if value is not None}
    return settled(cluster_config(name, read_changes(changes, "cluster.partition=gpu") | given))


def _print_plan(
    config: PipelineConfig, elements: Sequence[Element], profiles: dict[str, ClusterConfig]
) -> None:
    costs = planned(elements, profiles)
    out = console()
    out.print(jobs_table(fresh_jobs(config, elements), profiles, costs))
    known = [cost.flops for cost in costs.values() if cost.flops is not None]
    hours = [cost.hours for cost in costs.values() if cost.hours is not None]
    out.print(
        f"{len(elements)} elements; {sum(known):.4g} FLOPs planned for {len(known)} of "
        f"{len(costs)} that train"
        + (f", {sum(hours):.3g} hours of jobs" if hours else "")
        + "; nothing was submitted"
        + ("" if _on_slurm(profiles) else " or run"),
        soft_wrap=True,
    )


def _on_slurm(profiles: dict[str, ClusterConfig]) -> bool:
    return any(profile.kind == SLURM for profile in profiles.values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt launch",
        description="Runs the stages of a pipeline: on a Slurm cluster as job arrays that wait for "
        "what they need, or on this machine. In the same folder, the same command runs what is "
        "missing.",
    )
    parser.add_argument(
        "name", metavar="PIPELINE", help="a .yaml file, or one that is shipped, e.g. compare_flops"
    )
    parser.add_argument(
        "changes",
        metavar="key=value",
        nargs="*",
        help="cluster=local (the default), debug, slurm or a .yaml file of keys; "
        "cluster.KEY=VALUE; other values of keys of the pipeline",
    )
    parser.add_argument("--out", type=Path, metavar="STUDY", help="where to (runs/NAME)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check, here and with sbatch --test-only where Slurm is; print jobs and costs, write "
        "nothing",
    )
    return parser
