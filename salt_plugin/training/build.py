"""Stages from the configuration: models, recipe, cost and what to write on the encoder's card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pkgutil import resolve_name

import numpy as np
import torch

from salt_plugin.checkpoints import STUDENT_FIRST, load_encoder
from salt_plugin.compute.step_costs import Shapes
from salt_plugin.config import RunConfig
from salt_plugin.config.registry import MethodSpec
from salt_plugin.errors import CheckpointError
from salt_plugin.methods import Recipe, VideoMethod
from salt_plugin.models import FrozenTeacher, VideoEncoder
from salt_plugin.run_directory import StageDirectory
from salt_plugin.shapes import EncoderShape
from salt_plugin.training.accounts import StepCost
from salt_plugin.training.execution import autocast_dtype
from salt_plugin.training.length import Length, planned_steps
from salt_plugin.training.parts import Parts


@dataclass(frozen=True)
class Stage:
    """One stage of a run, ready to be trained.

    Attributes:
        method: What is trained.
        files: Where it is left.
        step_cost: FLOPs by part of a step on one device.
        seed: Of models, data and masks.
        budget: FLOPs that the stage may spend; None where its steps are counted.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.
    """

    method: VideoMethod
    files: StageDirectory
    step_cost: StepCost
    seed: int
    budget: int | None
    inherited: Mapping[str, int | None]

    @property
    def name(self) -> str:
        """`teacher` or `student`."""
        return self.files.root.name

    @property
    def total_steps(self) -> int:
        """Optimiser steps; under a budget, those that it is expected to pay for."""
        return self.method.recipe.total_steps


def stage_seed(config: RunConfig, stage: str) -> int:
    """Returns the seed of a stage: the student meets other batches than its teacher did."""
    number = ("teacher", "student").index(stage)
    return int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])


def new_stage(
    config: RunConfig,
    parts: Parts,
    files: StageDirectory,
    spec: MethodSpec,
    length: Length,
    teacher: VideoEncoder | None = None,
    checkpoint: str = "",
    inherited: Mapping[str, int | None] | None = None,
) -> Stage:
    """Returns a stage, ready to be trained.

    Args:
        config: Of the run.
        parts: Of the run.
        files: Where the stage is left.
        spec: The method of the stage, which for a teacher trained first is not that of the run.
        length: Of the stage.
        teacher: Is frozen here; None for a method that has none.
        checkpoint: The encoder file that it starts from, where one is named.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.

    Raises:
        CheckpointError: The file holds an encoder of another shape.
        ConfigError: The budget does not cover a single step.
    """
    seed = stage_seed(config, spec.result)
    encoder = new_encoder(config, parts.trained(spec.result), seed, checkpoint)
    cost = step_cost(spec, parts, None if teacher is None else teacher.shape)
    recipe = _recipe(config, planned_steps(length, config, parts, cost, spec.result))
    frozen = None if teacher is None else FrozenTeacher(teacher, autocast_dtype(config))
    method = resolve_name(spec.build)(config.method, parts, encoder, recipe, frozen)
    return Stage(method, files, cost, seed, length.budget, inherited or {})


def step_cost(spec: MethodSpec, parts: Parts, teacher: EncoderShape | None = None) -> StepCost:
    """Returns what a step of a method costs on one device.

    Args:
        spec: The method.
        parts: Of the run.
        teacher: Shape of the frozen teacher; None where there is none.
    """
    encoder = parts.trained(spec.result)
    tokens = math.prod(parts.grid)
    return partial(spec.step.exact, Shapes(encoder, teacher or encoder, parts.predictor, tokens))


def new_encoder(
    config: RunConfig, shape: EncoderShape, seed: int, checkpoint: str = ""
) -> VideoEncoder:
    """Returns an encoder as a stage starts with it: random by seed, or from a file.

    Raises:
        CheckpointError: The file holds an encoder of another shape.
    """
    torch.manual_seed(seed)
    model = config.method.model
    encoder = VideoEncoder(shape, model.drop_path, model.init_std)
    if checkpoint:
        loaded = load_named("checkpoint", checkpoint, STUDENT_FIRST)
        if loaded.shape != shape:
            differing = [
                f"{field}={found} instead of {getattr(shape, field)}"
                for field, found in asdict(loaded.shape).items()
                if found != getattr(shape, field)
            ]
            raise CheckpointError(
                f"checkpoint={checkpoint} holds an encoder with {', '.join(differing)}; name one "
                "of the configured shape, or change method.encoder and method.model to its"
            )
        encoder.load_state_dict(loaded.state_dict())
    return encoder


def load_named(key: str, path: str, order: Sequence[str]) -> VideoEncoder:
    """Returns the encoder that a config key names.

    Raises:
        CheckpointError: As `load_encoder`, with the key.
    """
    try:
        return load_encoder(path, order=order)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from None


def check_teacher(teacher: EncoderShape, student: EncoderShape, path: str) -> None:
    """Checks that teacher and student cut clips into the same tokens.

    Raises:
        CheckpointError: They do not.
    """
    for field in ("patch_size", "tubelet_size", "in_chans"):
        found, expected = getattr(teacher, field), getattr(student, field)
        if found != expected:
            raise CheckpointError(
                f"method.teacher.path={path}: the teacher has {field}={found}, the student "
                f"{expected}, so their tokens do not match; set method.model.{field}={found} or "
                "choose another teacher"
            )


def _recipe(config: RunConfig, total_steps: int) -> Recipe:
    optim = config.method.optim
    longest_warmup = math.floor(optim.max_warmup_share * total_steps)
    return Recipe(
        total_steps=total_steps,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        final_weight_decay=optim.final_weight_decay,
        betas=(optim.betas[0], optim.betas[1]),
        warmup_start=optim.warmup_start,
        warmup_steps=min(optim.warmup_steps, longest_warmup),
        final_lr=optim.final_lr,
        clip_grad=optim.clip_grad,
        fused=autocast_dtype(config) is not torch.float16,
    )
