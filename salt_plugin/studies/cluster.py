"""Where the jobs of a study run, and what each gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import slurm_folder
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.values import STRICT, AtLeast1, Count, Positive, holds, setting
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError

BASE = "base"
SLURM, LOCAL, DEBUG = "slurm", "local", "debug"
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")

Gpus = Annotated[
    Count | str,
    holds(lambda value: re.fullmatch(r"([\w.-]+:)?\d+", str(value)) is not None),
    Field(title="a number, or a type and a number, e.g. `a100:2`"),
]

# Options of sbatch that a profile cannot give, and why.
OURS = {
    "signal": "it tells a run to save; signal_delay_s says when",
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
    """The keys of a profile; `slurm/clusters/base.yaml` holds the defaults."""

    kind: Literal["slurm", "local", "debug"] = setting(
        "`slurm`; `local`: processes on this machine; `debug`: in the process of `salt`"
    )
    partition: str | None = setting("As sbatch takes it; null: the cluster's default")
    account: str | None = setting("Likewise")
    qos: str | None = setting("Likewise")
    constraint: str | None = setting("Likewise: features of nodes, e.g. `a100|h100`")
    nodes: AtLeast1 = setting("Of a job")
    tasks_per_node: AtLeast1 = setting(
        "Processes on each: with GPUs, as many as GPUs. Probes and reports always get one"
    )
    gpus_per_node: Gpus = setting("Of each node, with or without a type: `2`, `a100:2`")
    cpus_per_task: AtLeast1 = setting(
        "Of each process; set `loader.num_workers` to no more than these"
    )
    mem: str | None = setting("Of a node, e.g. `64G`")
    time: str = setting(
        "Limit, `HH:MM:SS` or `D-HH:MM:SS`, in quotes. A run that needs longer saves and is queued "
        "again, so short limits are fine for stages that train; other commands begin again"
    )
    array_parallelism: AtLeast1 = setting(
        "Most elements of a stage at a time; of `local`: of the study, by default 1"
    )
    signal_delay_s: Count = setting(
        "So many seconds before the limit a run is told to save. Slurm may do so up to a minute "
        "earlier"
    )
    patience: Count = setting(
        "Seconds for which commands, and jobs that queue themselves again, try again while Slurm's "
        "controller does not answer"
    )
    setup: list[str] = setting(
        "Lines of shell before the processes start, e.g. `[module load cuda]`"
    )
    srun_args: list[str] = setting("Further arguments of srun")
    sbatch: dict[str, Any] = setting(
        "Further options of sbatch, e.g. `{reservation: mine, exclude: [n1, n2], exclusive: true}`"
    )
    python: str | None = setting("The Python of the jobs; null: the one that launches")
    container: str | None = setting(
        "Goes before it, e.g. `apptainer exec --nv image.sif`; the study's folder has to be seen "
        "inside. `python` is then the one inside"
    )
    flops_per_second: Positive | None = setting(
        "Of one GPU, measured, for the hours of `--dry-run`"
    )

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
        ConfigError: It is neither.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"cluster.time={text}: expected 'HH:MM:SS' or 'D-HH:MM:SS', in quotes, since YAML "
            "takes 4:00:00 without them for a number"
        )
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    whole = (part["days"] * 24 + part["hours"]) * 60 + part["minutes"] + (part["seconds"] > 0)
    if whole < 1:
        raise ConfigError(f"cluster.time={text}: expected at least a minute")
    return whole


def profiles() -> list[str]:
    """Returns the names of the profiles that are shipped."""
    files = (slurm_folder() / "clusters").glob("*.yaml")
    return sorted(file.stem for file in files if file.stem != BASE)


def cluster_config(name: str, changes: Mapping[str, Any]) -> ClusterConfig:
    """Returns a profile.

    Args:
        name: One that is shipped, or a YAML file of the keys that differ from `base.yaml`.
        changes: Further keys.

    Raises:
        ConfigError: There is no such profile, or a key or value cannot work.
    """
    file = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else None
    if file is None and name not in profiles():
        raise ConfigError(
            f"cluster={name!r} is no profile; {suggestion(name, profiles())}, or a .yaml file"
        )
    found = read_yaml(file or slurm_folder() / "clusters" / f"{name}.yaml", references=True)
    return completed(_merged(found, changes))


def completed(values: Mapping[str, Any]) -> ClusterConfig:
    """Returns a profile of these values; what they leave out is as in `base.yaml`.

    Raises:
        ConfigError: A key or value cannot work.
    """
    base = read_yaml(slurm_folder() / "clusters" / f"{BASE}.yaml")
    return _checked(base | dict(values), "cluster.")


def with_resources(config: ClusterConfig, changes: Mapping[str, Any], stage: str) -> ClusterConfig:
    """Returns a profile as a stage changes it.

    Raises:
        ConfigError: A key or value cannot work.
    """
    key = f"pipeline.stages.{stage}.resources."
    if "kind" in changes:
        raise ConfigError(f"{key}kind: all stages run in one place; give cluster=...")
    return _checked(_merged(asdict(config), changes), key)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values with changes; options of sbatch are added to those that are there."""
    changes = dict(changes)
    if isinstance(values.get("sbatch"), dict) and isinstance(changes.get("sbatch"), dict):
        changes["sbatch"] = values["sbatch"] | changes["sbatch"]
    return {**values, **changes}


def _checked(values: Mapping[str, Any], key: str) -> ClusterConfig:
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
