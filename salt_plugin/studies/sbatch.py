"""What sbatch is asked for, and whether it would take it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from salt_plugin.studies.arrays import Job
from salt_plugin.studies.cluster import SLURM, ClusterConfig, minutes
from salt_plugin.studies.slurm_commands import SlurmError, call

# Options that a profile may leave to the user's environment.
LEFT_OPEN = ("partition", "account", "qos", "constraint", "reservation")
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
REMOVED = ("SBATCH_", "SLURM", "SRUN_", "SUBMITIT_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")


def with_environment(cluster: ClusterConfig) -> ClusterConfig:
    """Returns a profile with what it leaves open to the user's environment, and clears the rest.

    SBATCH_TIMELIMIT and the like beat the lines of a script; the variables of a job in which this
    process runs would reach the jobs that it submits. Prints which variables of the user are used,
    and which are not.
    """
    if cluster.kind != SLURM:
        return cluster
    names = [name for name in os.environ if name.startswith(REMOVED) and name not in KEPT]
    found = {name: os.environ.pop(name) for name in names}
    taken: dict[str, Any] = {}
    said = []
    for option in LEFT_OPEN:
        stated = getattr(cluster, option, None) or cluster.sbatch.get(option)
        variable = f"SBATCH_{option.upper()}"
        if not stated and (value := found.pop(variable, None)):
            taken[option] = value
            said.append(f"{option}={value} ({variable})")
    if ignored := sorted(name for name in found if name.startswith("SBATCH_")):
        said.append(f"not used: {', '.join(ignored)}")
    if said:
        print(f"from your environment: {', '.join(said)}", file=sys.stderr)
    if reservation := taken.pop("reservation", None):
        taken["sbatch"] = cluster.sbatch | {"reservation": reservation}
    return replace(cluster, **taken)


def options_of(profile: ClusterConfig) -> dict[str, Any]:
    """Returns the options of sbatch that a profile states."""
    same = ("partition", "account", "qos", "constraint", "nodes", "cpus_per_task", "mem")
    options = {
        **{name: getattr(profile, name) for name in same},
        "ntasks_per_node": profile.tasks_per_node,
        "gpus_per_node": profile.gpus_per_node if profile.gpus else None,
        "time": profile.minutes,
        **profile.sbatch,
    }
    return {
        name.replace("_", "-"): ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None and value is not False
    }


def flags_of(profile: ClusterConfig, elements: int) -> list[str]:
    """Returns the options of sbatch for a job of so many elements, as on a command line."""
    options = options_of(profile) | ({"array": f"0-{elements - 1}"} if elements > 1 else {})
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items()]


def check_jobs(jobs: Sequence[Job], profiles: Mapping[str, ClusterConfig]) -> None:
    """Finds what the cluster would refuse, before anything is submitted.

    Raises:
        SlurmError: Names the stage and the limit, or what Slurm says.
    """
    largest = {job.stage: job for job in sorted(jobs, key=lambda job: len(job.elements))}
    for stage in dict.fromkeys(job.stage for job in jobs):
        profile = profiles[stage]
        # Slurm accepts jobs beyond it, but never starts them.
        most = partition_minutes(profile.partition)
        if most is not None and profile.minutes > most:
            raise SlurmError(
                f"stage {stage}: time={profile.time} exceeds the {most} min of the partition; "
                "give less: a job that reaches its limit saves and is queued again"
            )
        flags = flags_of(profile, len(largest[stage].elements))
        try:
            call("sbatch", "--test-only", *flags, "--wrap=true")
        except SlurmError as error:
            raise refused(stage, str(error), flags) from None


def partition_minutes(partition: str | None) -> int | None:
    """Returns the longest time limit of a partition, or of the default one; None: there is none."""
    for line in call("scontrol", "-o", "show", "partition").splitlines():
        values = dict(part.split("=", 1) for part in line.split() if "=" in part)
        ours = values["PartitionName"] == partition if partition else values["Default"] == "YES"
        if ours and values["MaxTime"] != "UNLIMITED":
            return minutes(values["MaxTime"])
    return None


def refused(stage: str, said: str, flags: Sequence[str]) -> SlurmError:
    """Returns what Slurm says of a stage, what was asked for, and what would do."""
    line = said.strip().splitlines()[-1]
    return SlurmError(
        f"stage {stage}: {line}; asked for {' '.join(flags)}{_hint(line)}; nothing was submitted"
    )


def _hint(said: str) -> str:
    """Returns what would do, where Slurm says it."""
    if "partition" in said.lower() and "account" not in said.lower():
        names = call("sinfo", "-h", "-o", "%R").split()
        return f"; partitions here: {', '.join(dict.fromkeys(names))}"
    if "node configuration" in said:
        rows = call("sinfo", "-h", "-e", "-o", "%R: %D nodes, %c CPUs, %m MB, %G").splitlines()
        return f"; there are {'; '.join(dict.fromkeys(row.strip() for row in rows))}"
    if "array specification" in said:
        most = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
        return f"; MaxArraySize={most and most[1]}: split the sweep into stages or studies"
    return ""
