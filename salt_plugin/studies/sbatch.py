"""What sbatch is asked for, and whether it would take it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from salt_plugin.studies import queue
from salt_plugin.studies.ask import SlurmError, call
from salt_plugin.studies.cluster import SLURM, ClusterConfig
from salt_plugin.studies.jobs import Job

# Options that a profile may leave to the user's environment.
LEFT_OPEN = ("partition", "account", "qos", "constraint", "reservation")
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
REMOVED = ("SBATCH_", "SLURM", "SRUN_", "SUBMITIT_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")


def settled(cluster: ClusterConfig) -> ClusterConfig:
    """Returns a profile with what it leaves open to the user's environment, and clears the rest.

    SBATCH_TIMELIMIT and the like beat the lines of a script; the variables of a job in which this
    process runs would reach the jobs that it submits. What becomes of the user's is said.
    """
    if cluster.kind != SLURM:
        return cluster
    names = [name for name in os.environ if name.startswith(REMOVED) and name not in KEPT]
    found = {name: os.environ.pop(name) for name in names}
    taken: dict[str, Any] = {}
    for option in LEFT_OPEN:
        stated = getattr(cluster, option, None) or cluster.sbatch.get(option)
        if not stated and (value := found.pop(f"SBATCH_{option.upper()}", None)):
            taken[option] = value
    said = [f"{option}={value} (SBATCH_{option.upper()})" for option, value in taken.items()]
    if ignored := sorted(name for name in found if name.startswith("SBATCH_")):
        said.append(f"not used: {', '.join(ignored)}")
    if said:
        print(f"from your environment: {', '.join(said)}", file=sys.stderr)
    if reservation := taken.pop("reservation", None):
        taken["sbatch"] = cluster.sbatch | {"reservation": reservation}
    return replace(cluster, **taken)


def options_of(profile: ClusterConfig) -> dict[str, Any]:
    """Returns the options of sbatch that a profile states."""
    options = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "nodes": profile.nodes,
        "ntasks-per-node": profile.tasks_per_node,
        "gpus-per-node": profile.gpus_per_node if profile.gpus else None,
        "cpus-per-task": profile.cpus_per_task,
        "mem": profile.mem,
        "time": profile.minutes,
        **{name.replace("_", "-"): value for name, value in profile.sbatch.items()},
    }
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
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
    for stage in dict.fromkeys(job.stage for job in jobs):
        profile = profiles[stage]
        # Jobs beyond it are taken, and wait for ever.
        most = queue.partition_minutes(profile.partition)
        if most is not None and profile.minutes > most:
            raise SlurmError(
                f"stage {stage}: time={profile.time} exceeds the {most} min of the partition; "
                "give less: a job that reaches its limit saves and is queued again"
            )
        flags = flags_of(profile, max(len(job.elements) for job in jobs if job.stage == stage))
        try:
            call("sbatch", "--test-only", *flags, "--wrap=true")
        except SlurmError as error:
            raise refused(stage, str(error), flags) from None


def refused(stage: str, said: str, flags: Sequence[str]) -> SlurmError:
    """Returns what Slurm says of a stage, what was asked for, and what would do."""
    line = said.strip().splitlines()[-1]
    return SlurmError(
        f"stage {stage}: {line}; asked for {' '.join(flags)}{_hint(line)}; nothing was submitted"
    )


def _hint(said: str) -> str:
    """Returns what would do, where Slurm tells."""
    if "partition" in said.lower() and "account" not in said.lower():
        names = call("sinfo", "-h", "-o", "%R").split()
        return f"; partitions here: {', '.join(dict.fromkeys(names))}"
    if "node configuration" in said:
        rows = call("sinfo", "-h", "-e", "-o", "%R: %D nodes, %c CPUs, %m MB, %G").splitlines()
        return f"; there are {'; '.join(dict.fromkeys(row.strip() for row in rows))}"
    if "array specification" in said:
        return f"; MaxArraySize={queue.largest_array()}: split the sweep into stages or studies"
    if "job submit limit" in said:
        return (
            "; your account or QOS takes no more jobs (sacctmgr show assoc user=$USER, sacctmgr "
            "show qos): wait for others of yours, or launch fewer elements"
        )
    return ""
