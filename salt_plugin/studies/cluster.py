"""Where the jobs of a study run, and what each gets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import slurm_folder
from salt_plugin.config.suggest import BASE, shipped_file
from salt_plugin.config.typed import typed
from salt_plugin.config.values import STRICT, AtLeast1, Count, Positive, holds
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError

SLURM, LOCAL = "slurm", "local"
_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")

Gpus = Annotated[
    Count | str,
    holds(lambda value: re.fullmatch(r"([\w.-]+:)?\d+", str(value)) is not None),
    Field(title="a number, or a type and a number, e.g. `a100:2`"),
]

# Options of sbatch that a profile cannot give, and why.
OURS = {
    "signal": "it asks a run to save; signal_delay_s says when",
    "requeue": "what is interrupted is queued again",
    "no-requeue": "what is interrupted is queued again",
    "array": "its indices are the elements; array_parallelism limits how many run at a time",
    "output": "logs lie in the study's folder",
    "error": "logs lie in the study's folder",
    "dependency": "stages wait by it",
    "comment": "the jobs of a study are found by it",
    "clusters": "the environment variable SLURM_CLUSTERS holds for all commands of Slurm",
    "ntasks-per-node": "give tasks_per_node",
}


@dataclass(config=STRICT)
class ClusterConfig:
    """The keys of a profile; `slurm/clusters/base.yaml` holds the defaults.

    Attributes:
        kind: `slurm`; `local`: processes on this machine.
        partition: As sbatch takes it; null: the cluster's default.
        account: Likewise.
        qos: Likewise.
        constraint: Likewise: features of nodes, e.g. `a100|h100`.
        nodes: Of a job.
        tasks_per_node: Processes on each: with GPUs, as many as GPUs. Probes and reports always get
            one.
        gpus_per_node: Of each node, with or without a type: `2`, `a100:2`.
        cpus_per_task: Of each process; set `loader.num_workers` to no more than these.
        mem: Of a node, e.g. `64G`.
        time: Limit, `HH:MM:SS` or `D-HH:MM:SS`, in quotes. A run that needs longer saves and is
            queued again, so short limits are fine for stages that train; other commands begin
            again.
        array_parallelism: Most elements of a stage at a time; of `local`: of the study, by default
            1.
        signal_delay_s: Seconds before the limit at which a run is asked to save. Slurm may ask up
            to a minute earlier.
        patience: Seconds for which commands, and jobs that queue themselves again, try again while
            Slurm's controller does not answer.
        setup: Lines of shell before the processes start, e.g. `[module load cuda]`.
        srun_args: Further arguments of srun.
        sbatch: Further options of sbatch, e.g. `{reservation: mine, exclude: [n1, n2], exclusive:
            true}`.
        python: The Python of the jobs; null: the one that launches.
        container: A command that goes before Python, e.g. `apptainer exec --nv image.sif`. The
            image has to see the study's folder; `python` is then the one inside.
        flops_per_second: Of one GPU, measured, for the hours of `--dry-run`.
    """

    kind: Literal["slurm", "local"]
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: AtLeast1
    tasks_per_node: AtLeast1
    gpus_per_node: Gpus
    cpus_per_task: AtLeast1
    mem: str | None
    time: str
    array_parallelism: AtLeast1
    signal_delay_s: Count
    patience: Count
    setup: list[str]
    srun_args: list[str]
    sbatch: dict[str, Any]
    python: str | None
    container: str | None
    flops_per_second: Positive | None

    @property
    def command(self) -> list[str]:
        """The command that runs an element: Python, in a container or not."""
        python = shlex.split(self.python) if self.python else [sys.executable]
        return [*shlex.split(self.container or ""), *python]

    @property
    def minutes(self) -> int:
        """The time limit."""
        return minutes(self.time)

    @property
    def gpus(self) -> int:
        """GPUs of a node."""
        return int(str(self.gpus_per_node).rpartition(":")[2])

    @property
    def devices(self) -> int:
        """GPUs of a job, or its tasks where it has none."""
        return self.nodes * (self.gpus or self.tasks_per_node)

    def gpus_up_to(self, most: int) -> str:
        """Returns no more than so many GPUs of a node, of the same type."""
        kind, colon, number = str(self.gpus_per_node).rpartition(":")
        return f"{kind}{colon}{min(int(number), most)}"


def minutes(text: str) -> int:
    """Returns the minutes of `HH:MM:SS` or `D-HH:MM:SS`, rounded up.

    Raises:
        ConfigError: It is neither, or no time.
    """
    match = _TIME.fullmatch(text)
    days, hours, whole, seconds = (int(part or 0) for part in match.groups()) if match else [0] * 4
    found = (days * 24 + hours) * 60 + whole + (seconds > 0)
    if found < 1:
        raise ConfigError(
            f"cluster.time={text}: expected a minute or more as 'HH:MM:SS' or 'D-HH:MM:SS', in "
            "quotes, since YAML takes 4:00:00 without them for a number"
        )
    return found


def cluster_config(name: str, changes: Mapping[str, Any]) -> ClusterConfig:
    """Returns a profile.

    Args:
        name: One that is shipped, or a YAML file of the keys that differ from `base.yaml`.
        changes: Further keys.

    Raises:
        ConfigError: There is no such profile, or a key or value cannot work.
    """
    file = shipped_file(name, slurm_folder() / "clusters", "profile")
    return profile_from(read_yaml(file, references=True), changes)


def profile_from(*layers: Mapping[str, Any], key: str = "cluster.") -> ClusterConfig:
    """Returns the profile of `base.yaml` with changes to it.

    Args:
        *layers: Keys and values, of which later ones win; options of sbatch add up.
        key: Stands before the keys in messages.

    Raises:
        ConfigError: A key or value cannot work.
    """
    values = read_yaml(slurm_folder() / "clusters" / f"{BASE}.yaml")
    for layer in layers:
        before, sbatch = values["sbatch"], layer.get("sbatch", {})
        if isinstance(before, dict) and isinstance(sbatch, dict):
            sbatch = before | sbatch
        values |= {**layer, "sbatch": sbatch}
    config: ClusterConfig = typed(ClusterConfig, values, key)
    minutes(config.time)
    own = {field.name for field in fields(ClusterConfig)}
    for name in config.sbatch:
        option = name.replace("_", "-")
        if reason := OURS.get(option):
            raise ConfigError(f"{key}sbatch.{name}: not for a profile to give: {reason}")
        if option.replace("-", "_") in own:
            raise ConfigError(f"{key}sbatch.{name}: give {key}{option.replace('-', '_')} instead")
    return config
