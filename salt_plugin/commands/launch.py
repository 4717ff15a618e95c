"""`salt launch`: a pipeline on a cluster, or on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from salt_plugin.config.yaml_file import read_changes
from salt_plugin.errors import SaltError
from salt_plugin.report.console import console
from salt_plugin.report.study_tables import Lines, jobs_table
from salt_plugin.studies.attempts import FINISHED
from salt_plugin.studies.claims import CLAIM
from salt_plugin.studies.cluster import LOCAL, SLURM, ClusterConfig, cluster_config
from salt_plugin.studies.costs import check_configs, costs_of
from salt_plugin.studies.elements import Element, all_elements
from salt_plugin.studies.missing import missing_jobs, profiles_of, run_missing
from salt_plugin.studies.pipeline import pipeline_config
from salt_plugin.studies.sbatch import check_jobs, with_environment
from salt_plugin.studies.slurm_commands import SlurmError, call_once
from salt_plugin.studies.snapshot import run_kept_code
from salt_plugin.studies.states import ACTIVE, counts, rows_of
from salt_plugin.studies.study import Study


def main(arguments: list[str]) -> None:
    """Runs a pipeline, or what is missing of it.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A key cannot work, the cluster refuses, or an element failed on this machine.
    """
    description = (
        "Runs the stages of a pipeline: on a Slurm cluster as job arrays that wait for what they "
        "need, or on this machine. In the same folder, the same command runs what is missing."
    )
    parser = study_parser("launch", description, "a pipeline that is shipped", "runs/NAME")
    given = parser.parse_intermixed_args(arguments)
    changes, profile_keys = split_changes(given.changes)
    config = pipeline_config(given.name, changes)
    study = Study((given.out or Path("runs") / config.name).expanduser().absolute())
    run_kept_code(study.code, "launch", arguments)
    profile = profile_of(profile_keys)
    elements = all_elements(config, study.root)
    with nullcontext() if given.dry_run else study.claimed():
        study.plan(config, profile, elements)
        check_configs(elements)
        if given.dry_run:
            _print_plan(study)
            ask_slurm(study)
        else:
            failed, active = run_study(study)
            if not active:
                _print_claims(study)
            raise_failures(failed)


def run_study(
    study: Study, only_failed: bool = False, ended: Callable[[Element], None] | None = None
) -> tuple[dict[str, str], bool]:
    """Runs what is missing, and says where to look.

    Args:
        study: The study, claimed.
        only_failed: Only what has failed, and what is based on that.
        ended: Called with each element that was finished on this machine.

    Returns:
        The reason of each element that failed on this machine; whether some wait or run.

    Raises:
        SaltError: The cluster refuses, or the command was stopped.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines = Lines()
    try:
        with lines:
            failed = run_missing(study, only_failed, lines, ended)
    except KeyboardInterrupt:
        raise SaltError(f"stopped; {_progress(study)[0]}; the same command goes on") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    progress, active = _progress(study)
    console(stderr=True).print(f"{progress}; salt status {study.root}", soft_wrap=True)
    return failed, active


def _print_claims(study: Study) -> None:
    """Prints the outcome of each claim, a line each."""
    for stage, settings in study.pipeline().stages.items():
        file = study.root / stage / "all" / CLAIM
        if settings.claim is not None and file.is_file():
            print(file.read_text(), end="")


def ask_slurm(study: Study) -> None:
    """Asks Slurm, where it is to run a study and answers, whether it would take the jobs.

    Raises:
        SlurmError: It would not.
    """
    if study.cluster().kind != SLURM:
        return
    try:
        call_once("sinfo", "-h", "-o", "%R")
    except SlurmError as error:
        print(f"Slurm was not asked: {error}", file=sys.stderr)
        return
    check_jobs(missing_jobs(study)[0], profiles_of(study.pipeline(), study.cluster()))
    print("Slurm would take all jobs", file=sys.stderr)


def raise_failures(failed: Mapping[str, str]) -> None:
    """Raises what has failed.

    Raises:
        SaltError: Something has.
    """
    if failed:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        raise SaltError(f"{len(failed)} of the elements failed; salt retry goes on:{listed}")


def _progress(study: Study) -> tuple[str, bool]:
    found = counts(rows_of(study)[0])
    active = sum(found.get(state, 0) for state in ACTIVE)
    waits = f", {active} wait or run as they were submitted" if active else ""
    finished = f"{found.get(FINISHED, 0)} of {sum(found.values())} elements are finished"
    return finished + waits, active > 0


def split_changes(changes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the changes that are not of the cluster, and those that are."""
    of_cluster = [one for one in changes if one.startswith(("cluster=", "cluster."))]
    return [one for one in changes if one not in of_cluster], of_cluster


def profile_of(changes: Sequence[str], **more: object) -> ClusterConfig:
    """Returns the profile of `cluster=NAME` and `cluster.KEY=VALUE`, with the user's environment.

    Args:
        changes: From the command line.
        **more: Further keys; None: not given.

    Raises:
        ConfigError: There is no such profile, or a key or value cannot work.
    """
    named = [one.removeprefix("cluster=") for one in changes if one.startswith("cluster=")]
    dotted = [one.removeprefix("cluster.") for one in changes if one.startswith("cluster.")]
    given = {key: value for key, value in more.items() if value is not None}
    keys = read_changes(dotted, "cluster.partition=gpu") | given
    return with_environment(cluster_config([LOCAL, *named][-1], keys))


def _print_plan(study: Study) -> None:
    profiles = profiles_of(study.pipeline(), study.cluster())
    jobs, _ = missing_jobs(study)
    known = costs_of(study.elements(), profiles)
    selected = [one.id for job in jobs for one in job.elements]
    costs = {name: known[name] for name in selected if name in known}
    planned = [cost.flops for cost in costs.values() if cost.flops is not None]
    hours = sum(cost.hours or 0 for cost in costs.values())
    console().print(jobs_table(jobs, profiles, costs))
    console().print(
        f"{len(selected)} of {len(study.elements())} elements; {sum(planned):.4g} FLOPs planned "
        f"for {len(planned)} of {len(costs)} that train"
        f"{f', {hours:.3g} hours of jobs' if hours else ''}; nothing was submitted or run",
        soft_wrap=True,
    )


def study_parser(verb: str, description: str, name: str, out: str) -> argparse.ArgumentParser:
    """Returns the parser of a command that runs a study.

    Args:
        verb: Of `salt`.
        description: Of the command.
        name: What it takes, for the help.
        out: Where it writes to by default, for the help.
    """
    parser = argparse.ArgumentParser(prog=f"salt {verb}", description=description)
    parser.add_argument("name", metavar="NAME", help=f"{name}, or a .yaml file of keys")
    parser.add_argument(
        "changes",
        metavar="key=value",
        nargs="*",
        help="other values of its keys; cluster=local (the default), slurm or a .yaml file of "
        "keys; cluster.KEY=VALUE",
    )
    parser.add_argument("--out", type=Path, metavar="STUDY", help=f"where to ({out})")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check, here and with sbatch --test-only where Slurm is; print what would run, write "
        "nothing",
    )
    return parser
