"""The stages of a study, as a pipeline file gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import slurm_folder
from salt_plugin.config.suggest import require_known, shipped_file
from salt_plugin.config.typed import typed
from salt_plugin.config.values import STRICT
from salt_plugin.config.yaml_file import first_line, read_changes, read_yaml
from salt_plugin.errors import ConfigError

TRAIN, PROBE, TRACK, EXPORT, REPORT = "train", "probe", "track", "export", "report"


@dataclass(config=STRICT)
class StageConfig:
    """One stage: elements that run the same command.

    Attributes:
        command: A verb of `salt`; `report`: a table of the study.
        method: Of `train`; where a stage compares methods, sweep `method=salt,vjepa2` instead.
        overrides: Of `train`: Hydra's. Of other commands: their arguments.
        sweep: Hydra's sweeps, e.g. `seed=range(1,4)`; an element for each combination.
        needs: A stage: each of its elements gets each combination, and waits for that element
            alone.
        after: Stages that have to end first, finished or failed.
        resources: Keys of the profile that differ for this stage.
    """

    command: Literal["train", "probe", "track", "export", "report"] = "train"
    method: str | None = None
    overrides: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    needs: str | None = None
    after: list[str] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)


@dataclass(config=STRICT)
class PipelineConfig:
    """A study.

    Attributes:
        name: Of the study, and of its jobs; by default that of the file.
        overrides: Hydra's, of all stages that train.
        stages: By name.
    """

    name: str = ""
    overrides: list[str] = field(default_factory=list)
    stages: dict[str, StageConfig] = field(default_factory=dict)


def pipeline_config(name: str, changes: Sequence[str] = ()) -> PipelineConfig:
    """Returns a pipeline with its stages in an order in which they can run.

    Args:
        name: A YAML file, or the name of one that is shipped.
        changes: Other values of keys, e.g. ``["stages.student.sweep=['seed=1,2']"]``.

    Raises:
        ConfigError: There is no such pipeline, or a key or value cannot work.
    """
    values = read_yaml(shipped_file(name, slurm_folder(), "pipeline"), references=True)
    try:
        merged = OmegaConf.merge(values, read_changes(changes, "cluster.partition=gpu"))
        node: Any = OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{' '.join(changes)}: {first_line(error)}") from None
    config: PipelineConfig = typed(PipelineConfig, node, "pipeline.")
    config.name = config.name or Path(name).stem
    if not config.stages:
        raise ConfigError("pipeline.stages: empty; give at least one stage")
    for stage, settings in config.stages.items():
        _check_stage(stage, settings, config.stages)
    config.stages = _in_order(config.stages)
    return config


def _check_stage(name: str, stage: StageConfig, stages: Mapping[str, StageConfig]) -> None:
    key = f"pipeline.stages.{name}"
    if not re.fullmatch(r"[\w-]+", name) or name in ("code", "jobs"):
        raise ConfigError(
            f"{key}: expected a name of letters, digits, - and _, neither code nor jobs"
        )
    if stage.command != TRAIN and (stage.method or stage.sweep):
        raise ConfigError(f"{key}: only stages that train have a method or a sweep")
    if stage.needs is not None:
        require_known(stage.needs, stages, f"{key}.needs: there is no stage {stage.needs!r}")
    for other in stage.after:
        require_known(other, stages, f"{key}.after: there is no stage {other!r}")


def _in_order(stages: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """Returns the stages, each after those it waits for."""
    waits = {name: {*filter(None, [one.needs]), *one.after} for name, one in stages.items()}
    try:
        return {name: stages[name] for name in TopologicalSorter(waits).static_order()}
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"pipeline.stages: {circle} wait for each other; cut the circle"
        ) from None
