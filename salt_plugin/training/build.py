"""Stages from the configuration: models, recipe, cost and what to write on the encoder's card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pkgutil import resolve_name

import torch

from salt_plugin.checkpoints import STUDENT_FIRST, TEACHER_FIRST, load_encoder
from salt_plugin.config import RunConfig
from salt_plugin.errors import CheckpointError
from salt_plugin.methods import Recipe, VideoMethod
from salt_plugin.models import FrozenTeacher, VideoEncoder
from salt_plugin.shapes import EncoderShape
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.training.execution import autocast_dtype
from salt_plugin.training.parts import Parts
from salt_plugin.training.plan import StagePlan


@dataclass(frozen=True)
class Stage:
    """One stage of a run, ready to be trained.

    Attributes:
        method: What is trained.
        files: Where it is left.
        plan: How long it is, and what it costs.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.
    """

    method: VideoMethod
    files: StageDirectory
    plan: StagePlan
    inherited: Mapping[str, int | None]

    @property
    def name(self) -> str:
        """`teacher` or `student`."""
        return self.plan.name


def new_stage(
    config: RunConfig,
    parts: Parts,
    files: StageDirectory,
    plan: StagePlan,
    teacher: VideoEncoder | None = None,
    checkpoint: str = "",
    inherited: Mapping[str, int | None] | None = None,
) -> Stage:
    """Returns a stage, ready to be trained.

    Args:
        config: Of the run.
        parts: Of the run.
        files: Where the stage is left.
        plan: Of the stage.
        teacher: Is frozen here; None for a method that has none.
        checkpoint: The encoder file that it starts from, where one is named.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.

    Raises:
        CheckpointError: The file holds an encoder of another shape.
    """
    encoder = new_encoder(config, parts.trained(plan.name), plan.seed, checkpoint)
    recipe = _recipe(config, plan.steps)
    frozen = None if teacher is None else FrozenTeacher(teacher, autocast_dtype(config))
    kind: type[VideoMethod] = resolve_name(plan.spec.method)
    method = kind.configured(config.method, parts, encoder, recipe, frozen)
    return Stage(method, files, plan, inherited or {})


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


def load_teacher(path: str, student: EncoderShape) -> VideoEncoder:
    """Returns the encoder that `method.teacher.path` names.

    Raises:
        CheckpointError: As `load_named`, or it cuts clips into other tokens than the student.
    """
    encoder = load_named("method.teacher.path", path, TEACHER_FIRST)
    for field in ("patch_size", "tubelet_size", "in_chans"):
        found, expected = getattr(encoder.shape, field), getattr(student, field)
        if found != expected:
            raise CheckpointError(
                f"method.teacher.path={path}: the teacher has {field}={found}, the student "
                f"{expected}, so their tokens do not match; set method.model.{field}={found} or "
                "choose another teacher"
            )
    return encoder


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
