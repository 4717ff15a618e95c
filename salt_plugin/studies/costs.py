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


class Cost(NamedTuple):
    """What an element costs, and what it leaves; each is None where it cannot be known yet.

    Attributes:
        encoder: Shape of the encoder that elements based on this one learn from; None where that is
            of a file which is not there yet.
        spent: FLOPs that this encoder will have cost in all.
        steps: Of each of its stages.
        flops: Its own, in the `exact` convention.
        hours: At the throughput of its devices; None without one.
    """

    encoder: EncoderShape | None = None
    spent: int | None = None
    steps: tuple[int, ...] | None = None
    flops: int | None = None
    hours: float | None = None


def check_configs(elements: Sequence[Element]) -> None:
    """Composes the configurations of a study, one of all that differ only in seed or folder.

    Raises:
        ConfigError: One cannot work; names the element.
    """
    first: dict[tuple[str, ...], Element] = {}
    for element in elements:
        if element.arguments[0] == TRAIN:
            first.setdefault(_kind(element), element)
    for element in first.values():
        composed_config(element)


def composed_config(element: Element) -> RunConfig:
    """Returns the configuration of an element that trains.

    Raises:
        ConfigError: It cannot work.
    """
    overrides = [one for one in element.arguments[1:] if not one.startswith("hydra.")]
    try:
        check_overrides(overrides, written=in_yaml)
        config = load_alone(overrides)
        require_input(config)
    except ConfigError as error:
        raise ConfigError(f"{element.id}: {error}") from None
    return config


def costs_of(elements: Sequence[Element], profiles: Mapping[str, ClusterConfig]) -> dict[str, Cost]:
    """Returns what each element costs; nothing for those that do not train.

    Args:
        elements: Those that something is based on come before it.
        profiles: Of each stage.

    Raises:
        ConfigError: One cannot work; names the element.
    """
    found: dict[str, Cost] = {}
    known: dict[tuple[object, ...], Cost] = {}
    for element in elements:
        if element.arguments[0] == TRAIN:
            teacher = found.get(element.parent or "")
            kind = (*_kind(element), teacher)
            if kind not in known:
                known[kind] = _cost(element, profiles[element.stage], teacher)
            found[element.id] = known[kind]
    return found


def _kind(element: Element) -> tuple[str, ...]:
    """Returns what elements have in common that cost the same; to compose each takes long."""
    free = ("seed=", "hydra.", "method.teacher.path=")
    own = (one for one in element.arguments if not one.startswith(free))
    return (element.stage, *own)


def _cost(element: Element, profile: ClusterConfig, teacher: Cost | None) -> Cost:
    config = composed_config(element)
    try:
        plan = _plan(config, profile, teacher)
    except ConfigError as error:
        raise ConfigError(f"{element.id}: {error}") from None
    if plan is None and config.method.encoder is None:  # that of a file which is not there yet
        return Cost()
    if plan is None:
        return Cost(run_shapes(config).encoder)
    flops = sum(plan.flops().values())
    speed = (profile.flops_per_second or 0) * profile.devices
    spent = [flops, *plan.inherited.values()]
    return Cost(
        plan.stages[-1].pricing.shapes.encoder,
        None if None in spent else sum(filter(None, spent)),
        tuple(stage.steps for stage in plan.stages),
        flops,
        flops / speed / 3600 if speed else None,
    )


def _plan(config: RunConfig, profile: ClusterConfig, teacher: Cost | None) -> RunPlan | None:
    """Returns the plan of an element; None where it depends on what is not there yet."""
    config.method.global_batch_size = global_batch_size(config, profile.devices)
    shape, inherited = None, {}
    if teacher is not None and teacher.encoder is not None and named_teacher_path(config):
        if teacher.spent is None and config.compute.budget is not None:
            return None
        shape, inherited = teacher.encoder, {TEACHER_TRAINING: teacher.spent}
    try:
        return plan_configured(config, shape, inherited)
    except (CheckpointError, DataError):
        return None
