"""Stages from the configuration: models, recipe, and what to write on the encoder's card."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pkgutil import resolve_name
from typing import Any

import pytorch_lightning
import torch

from salt_plugin import __version__
from salt_plugin.checkpoints import STUDENT_FIRST, load_encoder
from salt_plugin.compute import Ledger, stage_bill
from salt_plugin.config import RunConfig
from salt_plugin.errors import CheckpointError
from salt_plugin.methods import Recipe, VideoMethod
from salt_plugin.models import FrozenTeacher, VideoEncoder
from salt_plugin.shapes import EncoderShape
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.training.budget import START, named_by
from salt_plugin.training.execution import autocast_dtype
from salt_plugin.training.foreign_teacher import TeacherFile
from salt_plugin.training.parts import Run
from salt_plugin.training.plan import StagePlan
from salt_plugin.training.sharding import Undivided


@dataclass(frozen=True)
class Stage:
    """One stage of a run, ready to be trained.

    Attributes:
        run: The run.
        plan: How long the stage is, and what it costs.
        method: What is trained.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.
        lineage: What the encoder comes from, as `ancestors.lineage_of` returns it.
        undivided: Makes whole copies of the method, where devices hold parts of it.
    """

    run: Run
    plan: StagePlan
    method: VideoMethod
    inherited: Mapping[str, int | None] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    undivided: Undivided | None = None

    def whole(self) -> VideoMethod:
        """Returns the method, a copy where it is divided; every process has to call this."""
        return self.method if self.undivided is None else self.undivided.copy()

    @property
    def name(self) -> str:
        """`teacher` or `student`."""
        return self.plan.name

    @property
    def files(self) -> StageDirectory:
        """Where the stage is written."""
        return self.run.directory.stage(self.name)

    def compute(self, ledger: Ledger) -> dict[str, Any]:
        """Returns ledger and bill, as `compute.json` and the encoder's card hold them."""
        bill = stage_bill(self.name, ledger, self.inherited)
        return {**ledger.as_dict(), "bill": bill.as_dict()}

    def card(self, ledger: Ledger) -> dict[str, Any]:
        """Returns the card of the encoder as it is now."""
        method, transform = self.run.config.method, self.run.parts.transform
        return {
            "method": method.name,
            "stage": self.name,
            "input": {**asdict(method.clip), "mean": transform.mean, "std": transform.std},
            "training": {
                "steps": ledger.steps,
                "steps_before": self.plan.steps_before,
                "batch_size": method.global_batch_size,
                "seed": self.run.config.seed,
                "start": {"seed": self.plan.seed, "std": self.run.config.method.model.init_std},
            },
            "compute": self.compute(ledger),
            "lineage": dict(self.lineage),
            "teacher_fingerprint": self.method.teacher_fingerprint,
            "versions": {
                "salt_plugin": __version__,
                "torch": str(torch.__version__),  # a class of its own, which no file may name
                "pytorch_lightning": pytorch_lightning.__version__,
                "python": platform.python_version(),
            },
        }


def new_stage(
    run: Run,
    plan: StagePlan,
    teacher: TeacherFile | None = None,
    checkpoint: str = "",
    inherited: Mapping[str, int | None] | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> Stage:
    """Returns a stage, ready to be trained.

    Args:
        run: The run.
        plan: Of the stage.
        teacher: Is frozen here; None for a method that has none.
        checkpoint: The encoder file that it starts from, where one is named.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.
        lineage: What the encoder comes from, as `ancestors.lineage_of` returns it.

    Raises:
        CheckpointError: The file holds an encoder of another shape.
    """
    config, parts = run.config, run.parts
    encoder = new_encoder(config, parts.trained(plan.name), plan.seed, checkpoint)
    frozen = None
    if teacher is not None:
        seen = parts.transform.normalization
        frozen = FrozenTeacher(teacher.encoder, autocast_dtype(config), seen, teacher.normalization)
    kind: type[VideoMethod] = resolve_name(plan.spec.method)
    method = kind.configured(config.method, parts, encoder, _recipe(config, plan), frozen)
    return Stage(run, plan, method, inherited or {}, lineage or {})


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
        with named_by(START):
            loaded = load_encoder(checkpoint, order=STUDENT_FIRST)
        found, expected = asdict(loaded.shape), asdict(shape)
        differing = [
            f"{name}={found[name]} instead of {expected[name]}"
            for name in expected
            if found[name] != expected[name]
        ]
        if differing:
            raise CheckpointError(
                f"{START}={checkpoint} holds an encoder with {', '.join(differing)}; name one "
                "of the configured shape, or change method.encoder and method.model to its"
            )
        encoder.load_state_dict(loaded.state_dict())
    return encoder


def _recipe(config: RunConfig, plan: StagePlan) -> Recipe:
    optim = asdict(config.method.optim)
    longest_warmup = math.floor(optim.pop("max_warmup_share") * plan.steps)
    optim["warmup_steps"] = min(optim["warmup_steps"], longest_warmup)
    optim["betas"] = tuple(optim["betas"])
    lr, weight_decay = config.optimizer.lr, config.optimizer.weight_decay
    fused = autocast_dtype(config) is not torch.float16
    return Recipe(
        plan.steps, lr, weight_decay, fused=fused, steps_before=plan.steps_before, **optim
    )
