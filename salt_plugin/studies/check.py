"""Whether the runs of a study can work, and what they cost, before any is submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from salt_plugin.compute import TEACHER_TRAINING
from salt_plugin.config import RunConfig, require_input
from salt_plugin.config.command_line import check_overrides, in_yaml
from salt_plugin.config.planning import load_alone
from salt_plugin.errors import CheckpointError, ConfigError, DataError
from salt_plugin.shapes import EncoderShape
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import TRAIN
from salt_plugin.training.budget import named_teacher_path
from salt_plugin.training.plan import RunPlan, global_batch_size, plan_configured
from salt_plugin.training.run_shapes import run_shapes


class Planned(NamedTuple):
    """What an element costs.

    Attributes:
        steps: Of each of its stages; None where nobody can tell.
        flops: Its own, in the `exact` convention; None where nobody can tell.
        hours: At the throughput of its devices; None without one.
    """

    steps: list[int] | None
    flops: float | None
    hours: float | None


class _Teacher(NamedTuple):
    """What an element leaves that others learn from, and what it will have cost in all."""

    shape: EncoderShape
    flops: int | None


def check_configs(elements: Sequence[Element]) -> dict[str, RunConfig]:
    """Composes configurations such that each value of a sweep, but of `seed`, is in one of them.

    Returns:
        The first configuration of each stage that trains.

    Raises:
        ConfigError: One cannot work; names the element.
    """
    seen: set[tuple[str, str, str]] = set()
    first: dict[str, RunConfig] = {}
    for element in elements:
        if element.arguments[0] != TRAIN:
            continue
        own = element.values[element.stage].items()
        values = {(element.stage, key, value) for key, value in own if key != "seed"}
        if element.stage in first and values <= seen:
            continue
        seen |= values
        composed = composed_config(element)
        first.setdefault(element.stage, composed)
    return first


def composed_config(element: Element) -> RunConfig:
    """Returns the configuration of an element that trains.

    Raises:
        ConfigError: It cannot work.
    """
    overrides = [one for one in element.arguments[1:] if not one.startswith("hydra.")]
    try:
        for override in overrides:
            check_overrides([override], written=in_yaml)
        config = load_alone(overrides)
        require_input(config)
    except ConfigError as error:
        raise ConfigError(f"{element.id}: {error}") from None
    return config


def planned(
    elements: Sequence[Element], profiles: Mapping[str, ClusterConfig]
) -> dict[str, Planned]:
    """Returns what each element costs; nothing for those that do not train.

    Args:
        elements: Those that something is based on come before it.
        profiles: Of each stage.

    Raises:
        ConfigError: One cannot work; names the element.
    """
    known: dict[tuple[str, ...], tuple[RunPlan | None, _Teacher]] = {}
    teachers: dict[str | None, _Teacher] = {}
    found: dict[str, Planned] = {}
    for element in elements:
        if element.arguments[0] != TRAIN:
            continue
        key, profile = _kind(element), profiles[element.stage]
        if key not in known:
            config = composed_config(element)
            try:
                plan = _plan(config, profile, teachers.get(element.parent))
            except ConfigError as error:
                raise ConfigError(f"{element.id}: {error}") from None
            known[key] = plan, _teacher_of(config, plan)
        plan, teachers[element.id] = known[key]
        if plan is None:
            found[element.id] = Planned(None, None, None)
            continue
        flops = float(sum(plan.flops().values()))
        speed = (profile.flops_per_second or 0) * profile.devices
        hours = flops / speed / 3600 if speed else None
        found[element.id] = Planned([stage.steps for stage in plan.stages], flops, hours)
    return found


def _kind(element: Element) -> tuple[str, ...]:
    """Returns what the cost of an element depends on: not its seed or folders."""
    free = ("seed=", "hydra.", "method.teacher.path=")
    own = [one for one in element.arguments if not one.startswith(free)]
    base = [
        f"{stage}.{key}={value}"
        for stage, values in element.values.items()
        for key, value in values.items()
        if key != "seed"
    ]
    return (element.stage, *own, *base)


def _teacher_of(config: RunConfig, plan: RunPlan | None) -> _Teacher:
    """Returns what a run leaves for students: its pixel teacher, or the one encoder it trains."""
    if plan is None:
        return _Teacher(run_shapes(config).encoder, None)
    first = plan.stages[0]
    spent: int | None = sum(first.flops().values())
    if len(plan.stages) == 1:
        for inherited in plan.inherited.values():
            spent = None if spent is None or inherited is None else spent + inherited
    return _Teacher(first.pricing.shapes.encoder, spent)


def _plan(config: RunConfig, profile: ClusterConfig, teacher: _Teacher | None) -> RunPlan | None:
    """Returns the plan of an element; None where it depends on what is not there yet."""
    shape, inherited = None, {}
    if teacher is not None and named_teacher_path(config) is not None:
        shape, inherited = teacher.shape, {TEACHER_TRAINING: teacher.flops}
        if teacher.flops is None and config.compute.budget is not None:
            return None
    config.method.global_batch_size = global_batch_size(config, profile.devices)
    try:
        return plan_configured(config, shape, inherited)
    except (CheckpointError, DataError):
        return None
