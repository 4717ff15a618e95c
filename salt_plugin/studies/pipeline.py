"""The stages of a study, as a pipeline file gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic.dataclasses import dataclass

from salt_plugin.conf_folder import conf_folder, slurm_folder
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.values import STRICT, setting
from salt_plugin.config.yaml_file import first_line, read_changes, read_yaml
from salt_plugin.errors import ConfigError

TRAIN, PROBE, TRACK, EXPORT, REPORT = "train", "probe", "track", "export", "report"


@dataclass(config=STRICT)
class StageConfig:
    """One stage: elements that run the same command."""

    command: Literal["train", "probe", "track", "export", "report"] = setting(
        "A verb of `salt`; `report`: a table of the study", default="train"
    )
    method: str | None = setting(
        "Of `train`; where a stage compares methods, sweep `method=salt,vjepa2` instead",
        default=None,
    )
    overrides: list[str] = setting(
        "Of `train`: Hydra's. Of other commands: their arguments", default_factory=list
    )
    sweep: list[str] = setting(
        "Hydra's sweeps, e.g. `seed=range(1,4)`; an element for each combination",
        default_factory=list,
    )
    needs: str | None = setting(
        "A stage: each of its elements gets each combination, and waits for that element alone",
        default=None,
    )
    after: list[str] = setting(
        "Stages that have to have ended, whatever came of them", default_factory=list
    )
    resources: dict[str, Any] = setting(
        "Keys of the profile that differ for this stage", default_factory=dict
    )


@dataclass(config=STRICT)
class PipelineConfig:
    """A study."""

    name: str = setting("Of the study, and of its jobs; by default that of the file", default="")
    overrides: list[str] = setting("Hydra's, of all stages that train", default_factory=list)
    stages: dict[str, StageConfig] = setting("By name", default_factory=dict)


def pipelines() -> list[str]:
    """Returns the names of the pipelines that are shipped."""
    return sorted(file.stem for file in slurm_folder().glob("*.yaml"))


def pipeline_config(name: str, changes: Sequence[str] = ()) -> PipelineConfig:
    """Returns a pipeline with its stages in an order in which they can run.

    Args:
        name: A YAML file, or one that is shipped, with or without `slurm/` and `.yaml`.
        changes: Other values of keys, e.g. ``["stages.student.sweep=['seed=1,2']"]``.

    Raises:
        ConfigError: There is no such pipeline, or a key or value cannot work.
    """
    values = _merged(read_yaml(_file(name), references=True), changes)
    config: PipelineConfig = typed(PipelineConfig, values, "pipeline.")
    config.name = config.name or Path(name).stem
    if not config.stages:
        raise ConfigError("pipeline.stages: empty; give at least one stage")
    for stage, settings in config.stages.items():
        _check_stage(stage, settings, config.stages)
    config.stages = {stage: config.stages[stage] for stage in _order(config.stages)}
    return config


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = path.stem
    if str(path.parent) in (".", "slurm") and shipped in pipelines():
        return slurm_folder() / f"{shipped}.yaml"
    raise ConfigError(
        f"{name!r} is no pipeline; {suggestion(shipped, pipelines())}, or a .yaml file of yours"
    )


def _merged(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    changed = read_changes(changes, "cluster.partition=gpu")
    try:
        merged = OmegaConf.merge(values, changed)
        node = OmegaConf.to_container(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{' '.join(changes)}: {first_line(error)}") from None
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def _check_stage(name: str, stage: StageConfig, stages: Mapping[str, StageConfig]) -> None:
    key = f"pipeline.stages.{name}"
    if not name.replace("_", "").replace("-", "").isalnum() or name in ("code", "jobs", "configs"):
        raise ConfigError(
            f"{key}: expected a name of letters, digits, - and _, and none of code, configs, jobs"
        )
    if stage.command != TRAIN and (stage.method or stage.sweep):
        raise ConfigError(f"{key}: only stages that train have a method or a sweep")
    methods = sorted(file.stem for file in (conf_folder() / "method").glob("*.yaml"))
    if stage.method is not None and stage.method not in methods:
        raise ConfigError(f"{key}.method={stage.method}: {suggestion(stage.method, methods)}")
    needed = [("needs", stage.needs)] if stage.needs is not None else []
    for what, other in [*needed, *(("after", other) for other in stage.after)]:
        if other not in stages:
            raise ConfigError(
                f"{key}.{what}: there is no stage {other!r}; {suggestion(str(other), stages)}"
            )


def _order(stages: Mapping[str, StageConfig]) -> list[str]:
    """Returns the stages, each after those it waits for."""
    waits = {
        name: [*([one.needs] if one.needs else []), *one.after] for name, one in stages.items()
    }
    try:
        return list(TopologicalSorter(waits).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"pipeline.stages: {circle} wait for each other; cut the circle"
        ) from None
