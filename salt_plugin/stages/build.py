"""Stages from the configuration: models, recipe, cost and what to write on the encoder's card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from salt_plugin.checkpoints import STUDENT_FIRST, load_encoder
from salt_plugin.compute import Tokens, pixel_teacher_step, salt_step, vjepa_step
from salt_plugin.config import RunConfig
from salt_plugin.errors import CheckpointError
from salt_plugin.methods import SALT, VJEPA, PixelTeacher, Recipe, VideoMethod
from salt_plugin.models import FrozenTeacher, Predictor, VideoEncoder
from salt_plugin.run_directory import StageDirectory
from salt_plugin.shapes import EncoderShape
from salt_plugin.stages.length import Length, planned_steps
from salt_plugin.stages.parts import Parts
from salt_plugin.training.accounts import StepCost
from salt_plugin.training.execution import autocast_dtype


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


def pixel_teacher_stage(
    config: RunConfig,
    parts: Parts,
    files: StageDirectory,
    length: Length,
    checkpoint: str = "",
    inherited: Mapping[str, int | None] | None = None,
) -> Stage:
    """Returns stage 1, or all of VideoMAE, starting from an encoder file where one is named."""
    assert parts.pixel_loss is not None
    seed = stage_seed(config, files.root.name)
    encoder = new_encoder(config, parts.teacher, seed, checkpoint)
    decoder = _predictor(config, parts, parts.teacher.embed_dim, parts.teacher.patch_dim)
    step_cost = partial(pixel_teacher_cost, parts)
    recipe = _recipe(config, planned_steps(length, config, parts, step_cost, files.root.name))
    method = PixelTeacher(encoder, decoder, parts.pixel_loss, recipe)
    return Stage(method, files, step_cost, seed, length.budget, inherited or {})


def salt_stage(
    config: RunConfig,
    parts: Parts,
    files: StageDirectory,
    length: Length,
    teacher: VideoEncoder,
    inherited: Mapping[str, int | None],
) -> Stage:
    """Returns stage 2, against a teacher that is frozen here."""
    assert parts.latent_loss is not None
    seed = stage_seed(config, "student")
    encoder = new_encoder(config, parts.encoder, seed, config.checkpoint)
    predictor = _predictor(config, parts, parts.encoder.embed_dim, teacher.embed_dim)
    frozen = FrozenTeacher(teacher, autocast_dtype(config))
    step_cost = partial(salt_cost, parts, teacher.shape)
    recipe = _recipe(config, planned_steps(length, config, parts, step_cost, "student"))
    method = SALT(encoder, predictor, frozen, parts.latent_loss, recipe)
    return Stage(method, files, step_cost, seed, length.budget, inherited)


def vjepa_stage(
    config: RunConfig,
    parts: Parts,
    files: StageDirectory,
    length: Length,
    inherited: Mapping[str, int | None],
) -> Stage:
    """Returns the one stage of V-JEPA."""
    assert parts.latent_loss is not None
    seed = stage_seed(config, "student")
    encoder = new_encoder(config, parts.encoder, seed, config.checkpoint)
    predictor = _predictor(config, parts, parts.encoder.embed_dim, parts.encoder.embed_dim)
    step_cost = partial(_vjepa_cost, parts)
    recipe = _recipe(config, planned_steps(length, config, parts, step_cost, "student"))
    momentum = config.method.momentum.start, config.method.momentum.end
    method = VJEPA(encoder, predictor, parts.latent_loss, recipe, momentum)
    return Stage(method, files, step_cost, seed, length.budget, inherited)


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


def _predictor(config: RunConfig, parts: Parts, context_dim: int, out_dim: int) -> Predictor:
    init_std = config.method.model.predictor.init_std
    return Predictor(context_dim, out_dim, parts.predictor, init_std)


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


def pixel_teacher_cost(parts: Parts, clips: int, masks: Sequence[Tokens]) -> dict[str, int]:
    """Returns the FLOPs of a step of stage 1 on one device."""
    return pixel_teacher_step(parts.teacher, parts.predictor, clips, masks)


def salt_cost(
    parts: Parts, teacher: EncoderShape, clips: int, masks: Sequence[Tokens]
) -> dict[str, int]:
    """Returns the FLOPs of a step of stage 2 on one device."""
    tokens = math.prod(parts.grid)
    return salt_step(parts.encoder, parts.predictor, teacher, clips, tokens, masks)


def _vjepa_cost(parts: Parts, clips: int, masks: Sequence[Tokens]) -> dict[str, int]:
    return vjepa_step(parts.encoder, parts.predictor, clips, math.prod(parts.grid), masks)
