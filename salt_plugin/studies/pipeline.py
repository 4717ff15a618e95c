"""The stages of a study, as a pipeline file gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from graphlib import CycleError, TopologicalSorter
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
from salt_plugin.studies.claims import ClaimConfig

TRAIN, PROBE, TRACK, EXPORT, REPORT = "train", "probe", "track", "export", "report"

# Names that mean something else in the folder of a study, or in its texts.
RESERVED = ("code", "jobs", "inputs", "needs", "study")

# Pipelines within the folder of those that are shipped.
CLAIMS = "claims"


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
        claim: Of `report`: `says`, `arms` and `statements` that its numbers are held to
            (docs/claims.md).
    """

    command: Literal["train", "probe", "track", "export", "report"] = "train"
    method: str | None = None
    overrides: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    needs: str | None = None
    after: list[str] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)
    claim: ClaimConfig | None = None


@dataclass(config=STRICT)
class PipelineConfig:
    """A study.

    Attributes:
        name: Of the study, and of its jobs; by default that of the file.
        overrides: Hydra's, of all stages that train.
        inputs: What stands for `{inputs.NAME}` in overrides, sweeps and claims; `???` has to be
            given.
        stages: By name.
        include: Pipelines instead of stages: one study of them all, in which elements that are
            alike are one.
    """

    name: str = ""
    overrides: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, StageConfig] = field(default_factory=dict)
    include: list[str | PipelineConfig] = field(default_factory=list)


def pipeline_config(name: str, changes: Sequence[str] = ()) -> PipelineConfig:
    """Returns a pipeline with its stages in an order in which they can run.

    Args:
        name: A YAML file, or the name of one that is shipped.
        changes: Other values of keys, e.g. ``["stages.student.sweep=['seed=1,2']"]``. Of a pipeline
            that includes others, `overrides` hold for all of these, and `inputs` for those that
            have them.

    Raises:
        ConfigError: There is no such pipeline, or a key or value cannot work.
    """
    given = read_changes(changes, "cluster.partition=gpu")
    return _read(name, given, " ".join(changes))


def _read(name: str, changes: dict[str, Any], told: str) -> PipelineConfig:
    file = shipped_file(name, slurm_folder(), "pipeline", CLAIMS)
    try:
        merged = OmegaConf.merge(read_yaml(file, references=True), changes)
        node: Any = OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{told}: {first_line(error)}") from None
    if not node.get("include"):  # which hands its inputs on
        node |= {key: _filled(value, node) for key, value in node.items() if key != "inputs"}
    config: PipelineConfig = typed(PipelineConfig, node, "pipeline.")
    config.name = config.name or file.stem
    if config.include:
        _include(config, told)
    elif not config.stages:
        raise ConfigError("pipeline.stages: empty; give at least one stage")
    for stage, settings in config.stages.items():
        _check_stage(stage, settings, config.stages)
    config.stages = _in_order(config.stages)
    return config


def _filled(value: Any, node: Mapping[str, Any]) -> Any:
    """Returns a value with what `{inputs.NAME}` in its texts stands for."""
    if isinstance(value, dict):
        return {key: _filled(one, node) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, node) for one in value]
    if not isinstance(value, str):
        return value

    def given(match: re.Match[str]) -> str:
        inputs = node.get("inputs") or {}
        require_known(match[1], inputs, f"pipeline.inputs: {match[0]} in {value!r}")
        return str(inputs[match[1]])

    return re.sub(r"\{inputs\.([\w-]+)\}", given, value)


def _include(config: PipelineConfig, told: str) -> None:
    """Reads the pipelines that another includes, and puts their stages together.

    Raises:
        ConfigError: One cannot work, or stages of one name differ in more than their sweeps.
    """
    if config.stages:
        raise ConfigError("pipeline.stages: not beside include; give the name of one that it lists")
    unknown, parts = {*config.inputs}, []
    for name in map(str, config.include):
        inputs = _inputs(name) & config.inputs.keys()
        unknown -= inputs
        changes: dict[str, Any] = {"inputs": {key: config.inputs[key] for key in inputs}}
        if config.overrides:
            changes["overrides"] = config.overrides
        parts.append(_read(name, changes, told))
    if unknown:
        raise ConfigError(f"pipeline.inputs.{min(unknown)}: no pipeline that is included has it")
    for part in parts:
        for name, stage in part.stages.items():
            first = config.stages.setdefault(name, replace(stage, sweep=[], after=[]))
            if replace(first, after=[]) != replace(stage, sweep=[], after=[]):
                raise ConfigError(
                    f"pipeline.include: the stages {name} differ in more than their sweeps; name "
                    f"that of {part.name} in another way"
                )
            first.after += [one for one in stage.after if one not in first.after]
    config.include = [*parts]


def parts_of(config: PipelineConfig) -> list[PipelineConfig]:
    """Returns the pipelines that a pipeline includes."""
    return [one for one in config.include if isinstance(one, PipelineConfig)]


def _inputs(name: str) -> set[str]:
    """Returns the names of the inputs of a pipeline that is included."""
    values = read_yaml(shipped_file(name, slurm_folder(), "pipeline", CLAIMS), references=True)
    if "include" in values:
        raise ConfigError(f"pipeline.include: {name} includes others itself; list these instead")
    return {*(values.get("inputs") or {})}


def _check_stage(name: str, stage: StageConfig, stages: Mapping[str, StageConfig]) -> None:
    key = f"pipeline.stages.{name}"
    if not re.fullmatch(r"[\w-]+", name) or name in RESERVED:
        raise ConfigError(
            f"{key}: expected a name of letters, digits, - and _, and none of {', '.join(RESERVED)}"
        )
    if stage.command != TRAIN and (stage.method or stage.sweep):
        raise ConfigError(f"{key}: only stages that train have a method or a sweep")
    if stage.claim is not None:
        if stage.command != REPORT:
            raise ConfigError(f"{key}.claim: only a report has one")
        stage.claim.check(f"{key}.claim", stages)
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
