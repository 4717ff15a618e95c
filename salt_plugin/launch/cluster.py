"""Where the jobs of a study run, and what each gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from salt_plugin.conf_folder import slurm_folder
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError

BASE = "base"
SLURM, LOCAL, DEBUG = "slurm", "local", "debug"
KINDS = (SLURM, LOCAL, DEBUG)
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")


@dataclass
class ClusterConfig:
    """A profile; `slurm/clusters/base.yaml` says what each key means."""

    kind: str
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    mem: str | None
    time: str
    array_parallelism: int
    signal_delay_s: int
    setup: list[str]
    srun_args: list[str]
    sbatch: dict[str, Any]
    python: str | None
    container: str | None
    flops_per_second: float | None

    @property
    def minutes(self) -> int:
        """The time limit."""
        return minutes(self.time)

    @property
    def devices(self) -> int:
        """GPUs of a job, or its tasks where it has none."""
        return self.nodes * (self.gpus_per_node or self.tasks_per_node)


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
    folder = slurm_folder() / "clusters"
    found = read_yaml(folder / f"{BASE}.yaml")
    found |= read_yaml(file or folder / f"{name}.yaml", references=True)
    return checked(found | dict(changes), "cluster.")


def with_resources(config: ClusterConfig, changes: Mapping[str, Any], stage: str) -> ClusterConfig:
    """Returns a profile as a stage changes it.

    Raises:
        ConfigError: A key or value cannot work.
    """
    key = f"pipeline.stages.{stage}.resources."
    if "kind" in changes:
        raise ConfigError(f"{key}kind: all stages run in one place; give cluster=...")
    return checked(asdict(config) | dict(changes), key)


def checked(values: Mapping[str, Any], key: str) -> ClusterConfig:
    """Returns a profile of these values.

    Raises:
        ConfigError: A key or value cannot work.
    """
    config: ClusterConfig = typed(ClusterConfig, values, key)
    if config.kind not in KINDS:
        raise ConfigError(f"{key}kind={config.kind}: expected one of {', '.join(KINDS)}")
    for name in ("nodes", "tasks_per_node", "cpus_per_task", "array_parallelism"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{key}{name}={getattr(config, name)}: expected at least 1")
    for name in ("gpus_per_node", "signal_delay_s"):
        if getattr(config, name) < 0:
            raise ConfigError(f"{key}{name}={getattr(config, name)}: expected 0 or more")
    if config.flops_per_second is not None and config.flops_per_second <= 0:
        raise ConfigError(f"{key}flops_per_second={config.flops_per_second}: expected more than 0")
    minutes(config.time)
    return config
