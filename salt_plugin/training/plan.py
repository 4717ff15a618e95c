"""What a run will train, for how many steps, at which price; training and planning share it.

Imports torch only if a file of weights is named, or videos have to be listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from salt_plugin.compute import Ledger
from salt_plugin.compute.pricing import SAMPLED, WALKED, Price, Pricing
from salt_plugin.compute.step_costs import Shapes
from salt_plugin.config import RunConfig, registry
from salt_plugin.config.registry import MethodSpec
from salt_plugin.errors import ConfigError
from salt_plugin.masks import StepMasks
from salt_plugin.report.units import flops
from salt_plugin.shapes import CountedShape, EncoderShape
from salt_plugin.training.budget import (
    budget_left,
    inherited_flops,
    load_teacher,
    named_teacher_path,
)
from salt_plugin.training.run_shapes import RunShapes, run_shapes


class BudgetTooSmallError(ConfigError):
    """A budget that does not pay for the first step of each stage."""


def global_batch_size(config: RunConfig, devices: int, stored: int | None = None) -> int:
    """Returns the clips of a step: `method.global_batch_size`, or what all devices hold at once.

    Args:
        config: Of the run.
        devices: That train together.
        stored: Those of the run that goes on, where none are given.

    Raises:
        ConfigError: They are fewer than the devices.
    """
    clips: int = config.method.global_batch_size or stored or config.loader.batch_size * devices
    if clips < devices:
        raise ConfigError(
            f"method.global_batch_size={clips}: expected at least one clip for each of the "
            f"{devices} devices that train together; give more, or train on fewer devices"
        )
    return clips


@dataclass(frozen=True)
class StagePlan:
    """A stage before it is trained.

    Attributes:
        spec: The method of the stage, which for a teacher trained first is not that of the run.
        pricing: What its steps cost.
        steps: Optimiser steps; under a budget, those that it is expected to pay for.
        budget: FLOPs that the stage may spend; None where its steps are counted.
        steps_before: Steps of the runs that it continues.
    """

    spec: MethodSpec
    pricing: Pricing
    steps: int
    budget: int | None = None
    steps_before: int = 0

    @property
    def name(self) -> str:
        """`teacher` or `student`; the one stage of V-JEPA and VideoMAE is `student`."""
        return self.spec.result

    @property
    def seed(self) -> int:
        """Seed of models, data and masks."""
        return self.pricing.masks.seed

    def flops(self) -> dict[str, int]:
        """Returns the expected FLOPs by part of a bill."""
        return self.pricing.expected(self.steps, SAMPLED if self.budget is None else WALKED)

    def position(self, ledger: Ledger) -> float:
        """Returns how many of the planned steps are done; under a budget, by their FLOPs.

        Schedules follow it, so that they end where the stage does: the cost of a step varies with
        its masks.
        """
        if self.budget is None:
            return ledger.steps
        return self.steps * ledger.total_flops / self.budget

    def next_price(self, ledger: Ledger) -> Price | None:
        """Returns the price of the next step; None if the stage has no more, or cannot pay it."""
        if self.budget is None and ledger.steps >= self.steps:
            return None
        price = self.pricing.price(ledger.steps)
        spent = ledger.total_flops + sum(price.flops.values())
        return price if self.budget is None or spent <= self.budget else None

    def under(self, budget: int | None, whole: float | None, share: float = 1.0) -> StagePlan:
        """Returns the plan of the same stage under a budget; None leaves its steps.

        Args:
            budget: Of the stage.
            whole: Of the run.
            share: Share of an increase of the run's budget that goes to this stage.

        Raises:
            BudgetTooSmallError: It does not cover one step; the message says which would do.
        """
        if budget is None or whole is None:
            return self
        steps = self.pricing.affordable(budget)
        if steps < 1:
            first = sum(self.pricing.expected(1).values())
            needed = whole + (first - budget) / share
            # Rounded to four digits, but never down.
            raise BudgetTooSmallError(
                f"compute.budget={whole:.4g} leaves {flops(budget)} for the {self.name}, of which "
                f"the first step takes {flops(first)}; give at least {needed * 1.0005:.4g}"
            )
        return replace(self, steps=steps, budget=budget)


@dataclass(frozen=True)
class RunPlan:
    """A run before it is trained.

    Attributes:
        stages: In the order in which they are trained.
        inherited: What was spent on the files that it starts from, as `compute.stage_bill` takes
            it.
    """

    stages: Sequence[StagePlan]
    inherited: Mapping[str, int | None] = field(default_factory=dict)

    def flops(self) -> dict[str, int]:
        """Returns the expected FLOPs of the run itself, by part of a bill."""
        return {part: count for stage in self.stages for part, count in stage.flops().items()}


def plan_run(
    config: RunConfig,
    shapes: RunShapes,
    steps: int,
    teacher: EncoderShape | CountedShape | None = None,
    inherited: Mapping[str, int | None] | None = None,
    convention: str = "exact",
    steps_before: int = 0,
) -> RunPlan:
    """Plans a run.

    Args:
        config: Its configuration, in which `method.global_batch_size` is a number.
        shapes: Of the configuration.
        steps: Of the last stage, unless there is a budget.
        teacher: Shape of the teacher that `method.teacher.path` names, None where none is named.
        inherited: What was spent on the files that the run starts from.
        convention: `exact` or `paper`.
        steps_before: Steps of the runs that the run continues.

    Raises:
        ConfigError: The budget does not cover a single step of a stage, or what came before it.
    """

    def stage_plan(
        of: MethodSpec, steps: int, teacher: EncoderShape | CountedShape | None
    ) -> StagePlan:
        encoder, (T, H, W) = shapes.trained(of.result), shapes.grid
        predictor = shapes.predictor_of(encoder)
        models = Shapes(
            encoder, teacher or encoder, predictor, T * H * W, shapes.projector, shapes.head
        )
        clips, group = config.method.global_batch_size, config.method.mask_group
        seed = stage_seed(config, of.result, steps_before)
        masks = StepMasks(shapes.masks, shapes.grid, seed, clips, group)
        recomputes = config.method.model.activation_checkpointing
        pricing = Pricing(of, models, masks, recomputes, convention)
        return StagePlan(of, pricing, steps, steps_before=steps_before)

    inherited = inherited or {}
    spec = registry.get(config.method.name)
    whole, left = config.compute.budget, budget_left(config, inherited)
    if spec.teacher is None or teacher is not None:
        return RunPlan([stage_plan(spec, steps, teacher).under(left, whole)], inherited)
    share = config.compute.teacher_share
    first = stage_plan(spec.teacher, config.method.teacher.max_steps, None)
    first = first.under(None if left is None else round(share * left), whole, share)
    if left is not None:
        left -= sum(first.flops().values())
    last = stage_plan(spec, steps, shapes.teacher).under(left, whole, 1 - share)
    return RunPlan([first, last], inherited)


def plan_configured(
    config: RunConfig,
    teacher: EncoderShape | CountedShape | None = None,
    inherited: Mapping[str, int | None] | None = None,
) -> RunPlan:
    """Plans what a configuration describes, files that it names included.

    Args:
        config: In which `method.global_batch_size` is a number. Videos are listed only where
            `trainer.max_epochs` ends training.
        teacher: Shape of what `method.teacher.path` names, where there is no such file yet.
        inherited: What was spent on that teacher.

    Raises:
        SaltError: A file is missing or damaged, or does not fit, or the budget does not cover a
            single step.
    """
    if registry.get(config.method.name).classifies:
        from salt_plugin.training.labelled import settled

        config = settled(config)
    shapes, videos, origin = run_shapes(config), 0, None
    if config.method.continue_from:
        from salt_plugin.training.ancestors import origin_of

        origin = origin_of(config, shapes)
    if config.trainer.max_epochs != -1:
        from salt_plugin.data.stream import training_videos

        videos = len(training_videos(config).paths)
    path = named_teacher_path(config) if teacher is None else None
    if path is None and origin is not None:
        path = origin.teacher
    if teacher is None and path is not None:
        teacher = load_teacher(path, shapes).shape
    steps = total_steps(config, videos)
    if origin is not None:
        return plan_run(config, shapes, steps, teacher, origin.inherited, steps_before=origin.steps)
    spent = {**inherited_flops(config, path), **(inherited or {})}
    return plan_run(config, shapes, steps, teacher, spent)


def total_steps(config: RunConfig, videos: int) -> int:
    """Returns the steps of the last stage, by `trainer.max_steps` and `trainer.max_epochs`.

    Args:
        config: Of the run, in which `method.global_batch_size` is a number.
        videos: In an epoch.
    """
    trainer = config.trainer
    limits = [trainer.max_steps] if trainer.max_steps != -1 else []
    if trainer.max_epochs != -1:
        whole, rest = divmod(videos, config.method.global_batch_size)
        steps = whole + (rest > 0 and not config.loader.drop_last)
        limits.append(trainer.max_epochs * max(1, steps))
    return min(limits)


def stage_seed(config: RunConfig, stage: str, steps_before: int = 0) -> int:
    """Returns the seed of a stage.

    The student meets other batches than its teacher did, and a run that continues another meets
    others than that one did.
    """
    place = ("teacher", "student").index(stage), steps_before
    entropy = (config.seed, *(place if steps_before else place[:1]))
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
