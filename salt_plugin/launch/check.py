"""Whether the runs of a study can work, and what they cost, before any is submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydra.errors import HydraException

from salt_plugin.compute.mask_lengths import draw_lengths
from salt_plugin.compute.workload import Workload
from salt_plugin.config import RunConfig, load_config, registry, require_input
from salt_plugin.config.command_line import check_overrides, composition_error, in_yaml
from salt_plugin.config.planning import compose_alone
from salt_plugin.errors import ConfigError
from salt_plugin.launch.cluster import ClusterConfig
from salt_plugin.launch.elements import Element
from salt_plugin.launch.pipeline import TRAIN
from salt_plugin.shapes import EncoderShape, PredictorShape

# So many batches give the mean cost of a step to about 0.5 %.
DRAWS = 500
SEED = 0


class Planned(NamedTuple):
    """What an element costs.

    Attributes:
        flops: Its own, in the `exact` convention; None where nobody can tell.
        hours: At the throughput of its devices; None without one.
    """

    flops: float | None
    hours: float | None


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
        # What these add at the top level reaches `salt train`, which knows its keys.
        config = load_config(compose_alone(overrides), foreign=False)
        require_input(config)
    except HydraException as error:
        raise ConfigError(f"{element.id}: {composition_error(error)}") from None
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
    """
    known: dict[tuple[str, ...], tuple[float | None, str]] = {}
    encoders: dict[str | None, str] = {}
    found: dict[str, Planned] = {}
    for element in elements:
        if element.arguments[0] != TRAIN:
            continue
        key = _kind(element)
        if key not in known:
            config = composed_config(element)
            inherited = found[element.parent].flops if element.parent in found else 0.0
            teacher = encoders.get(element.parent)
            flops = _flops(config, profiles[element.stage], inherited, teacher)
            known[key] = flops, config.method.encoder
        flops, encoders[element.id] = known[key]
        profile = profiles[element.stage]
        speed = (profile.flops_per_second or 0) * profile.devices
        hours = flops / speed / 3600 if flops is not None and speed else None
        found[element.id] = Planned(flops, hours)
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


def _flops(
    config: RunConfig, profile: ClusterConfig, inherited: float | None, teacher_encoder: str | None
) -> float | None:
    budget = config.compute.budget
    if budget is not None:
        return None if inherited is None else max(0.0, budget - inherited)
    steps = config.trainer.max_steps
    if steps < 0:
        return None
    teacher = getattr(config.method, "teacher", None)
    try:
        costs = _workload(config, profile, teacher_encoder).step_costs("exact")
    except ConfigError:
        return None  # masks of the user's own cannot be drawn without them
    teacher_steps = teacher.max_steps if teacher is not None and teacher.path is None else 0
    return float(sum(costs.spent(steps, teacher_steps).values()))


def _workload(config: RunConfig, profile: ClusterConfig, teacher_encoder: str | None) -> Workload:
    method = config.method
    model, clip = method.model, method.clip
    tokens = {"patch_size": model.patch_size, "tubelet_size": model.tubelet_size}
    shape = EncoderShape.named(method.encoder, **tokens)
    teacher = getattr(method, "teacher", None)
    if teacher is not None and (teacher.path is None or teacher_encoder is None):
        teacher_encoder = teacher.encoder
    grid = shape.grid(clip.frames, clip.size, clip.size)
    ranks = profile.nodes * profile.tasks_per_node
    whole = getattr(method, "global_batch_size", None) or config.loader.batch_size * ranks
    lengths = draw_lengths(method.masks, grid, config.loader.batch_size, DRAWS, SEED)
    predictor = model.predictor
    return Workload(
        method=registry.get(method.name),
        encoder=shape,
        teacher=EncoderShape.named(teacher_encoder or method.encoder, **tokens),
        predictor=PredictorShape(
            dim=predictor.dim,
            depth=predictor.depth,
            num_heads=predictor.num_heads,
            num_mask_tokens=len(lengths[0]),
        ),
        grid=grid,
        batch_size=whole,
        lengths=lengths,
    )
