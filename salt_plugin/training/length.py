"""How long a stage is: so many steps, or as many as a budget of FLOPs pays for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch

from salt_plugin.checkpoints import STUDENT_FIRST, TEACHER_FIRST, find_encoder, read_bill
from salt_plugin.compute import INITIALISATION, TEACHER_TRAINING, Tokens
from salt_plugin.config import RunConfig, clips_of_rank
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.report.units import flops
from salt_plugin.training.accounts import StepCost
from salt_plugin.training.execution import devices
from salt_plugin.training.parts import Parts

# Draws of masks whose mean cost is that of a step: its standard error is below 1 %.
PLANNING_DRAWS = 64


class Length(NamedTuple):
    """Optimiser steps of a stage, or the FLOPs it may spend instead."""

    steps: int
    budget: int | None = None


def inherited_flops(config: RunConfig, teacher: str | None = None) -> dict[str, int | None]:
    """Returns what was spent on the files that a stage starts from, as `compute.stage_bill` does.

    Args:
        config: Of the run; `checkpoint` names the encoder that training starts from.
        teacher: The teacher's run directory or file.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    inherited: dict[str, int | None] = {}
    if config.checkpoint:
        inherited[INITIALISATION] = _bill("checkpoint", config.checkpoint, STUDENT_FIRST)
    if teacher is not None:
        inherited[TEACHER_TRAINING] = _bill("method.teacher.path", teacher, TEACHER_FIRST)
    return inherited


def _bill(key: str, path: str, order: Sequence[str]) -> int | None:
    try:
        return read_bill(find_encoder(path, order))
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from None


def budget_left(config: RunConfig, inherited: dict[str, int | None]) -> int | None:
    """Returns the budget of the last stage: that of the run without what was spent before.

    Raises:
        ConfigError: Nothing is left of it, or nobody has counted what was spent.
    """
    budget = config.compute.budget
    if budget is None:
        return None
    left = int(budget)
    for part, spent in inherited.items():
        key = "checkpoint" if part == INITIALISATION else "method.teacher.path"
        if spent is None:
            raise ConfigError(
                f"compute.budget={budget:g} covers all that an encoder has cost, and nobody has "
                f"counted what {key} has: its file has no ledger. Leave compute.budget out, or "
                "name an encoder that this package has trained"
            )
        left -= spent
        if left <= 0:
            raise ConfigError(
                f"compute.budget={budget:g}: {key} alone has cost {spent:.4g}; give more than that"
            )
    return left


def planned_steps(
    length: Length, config: RunConfig, parts: Parts, step_cost: StepCost, stage: str
) -> int:
    """Returns the steps of a stage; under a budget, those that it is expected to pay for.

    Raises:
        ConfigError: The budget does not cover a single step.
    """
    if length.budget is None:
        return length.steps
    cost = sum(mean_cost(config, parts, step_cost).values())
    if length.budget < cost:
        raise ConfigError(
            f"compute.budget={config.compute.budget:g} leaves {flops(length.budget)} for the "
            f"{stage}, of which a step takes {flops(cost)}; give more"
        )
    return round(length.budget / cost)


def most_steps(stage_budget: int, config: RunConfig, parts: Parts, step_cost: StepCost) -> int:
    """Returns a number of steps that no budget is enough for, however few tokens masks leave."""
    least = [Tokens(1, 1)] * parts.predictor.num_mask_tokens
    clips = clips_of_rank(config, devices(config))
    return stage_budget // sum(step_cost(clips, least).values()) + 1


def mean_cost(config: RunConfig, parts: Parts, step_cost: StepCost) -> dict[str, float]:
    """Returns the FLOPs by part of a step on all devices, the mean over draws of masks."""
    generator = torch.Generator().manual_seed(config.seed)
    clips = clips_of_rank(config, devices(config))
    costs = []
    for _ in range(PLANNING_DRAWS):
        masks = parts.masks(clips, parts.grid, generator)
        tokens = [Tokens(mask.context.shape[1], mask.target.shape[1]) for mask in masks]
        costs.append(step_cost(clips, tokens))
    return {
        part: statistics.fmean(cost[part] for cost in costs) * devices(config) for part in costs[0]
    }
