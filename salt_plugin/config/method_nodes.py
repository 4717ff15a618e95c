"""The keys of the nodes under `method`: types, ranges, meanings and marks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.config.values import (
    COMPARED,
    OPERATIONAL,
    STRICT,
    AtLeast1,
    Auto,
    Count,
    NotNegative,
    Number,
    Positive,
    Rate,
    Share,
    Whole,
    setting,
)

Betas = Annotated[
    list[Annotated[Number, Field(ge=0, lt=1)]],
    Field(min_length=2, max_length=2, title="two numbers from 0 to below 1"),
]
Minutes = Annotated[NotNegative | None, Field(title="0 or null (off), or more")]


@dataclass(config=STRICT)
class ClipConfig:
    """`method.clip`: frames of a clip, their size, and how far apart they are."""

    frames: AtLeast1 = setting("Frames of a clip; a multiple of `method.model.tubelet_size`")
    size: AtLeast1 = setting(
        "Height and width of a clip in pixels; a multiple of `method.model.patch_size`"
    )
    step: AtLeast1 = setting("Frames of the video from one frame of the clip to the next")
    fps: Positive | None = setting(
        "Set: sample by time at this rate instead; `method.clip.step` is then not used"
    )


@dataclass(config=STRICT)
class PredictorConfig:
    """`method.model.predictor`: shape of the predictor and of the pixel decoder."""

    dim: AtLeast1 | None = setting(
        "Width of the predictor, and of the decoder that predicts pixels; null: 384, or half the "
        "width of an encoder narrower than ViT-B"
    )
    depth: AtLeast1 | None = setting("Blocks of both; null: 12, or those of an encoder of fewer")
    num_heads: AtLeast1 | None = setting("Attention heads of both; null: heads of 32 channels")
    init_std: Positive = setting("Standard deviation of the initial weights of both")


@dataclass(config=STRICT)
class ModelConfig:
    """`method.model`: tubelet, predictor, stochastic depth, and how it is executed."""

    patch_size: AtLeast1 = setting("Side of a tubelet in pixels", COMPARED)
    tubelet_size: AtLeast1 = setting("Frames of a tubelet", COMPARED)
    drop_path: Rate = setting(
        "Stochastic depth rate of the last encoder block; earlier blocks rise to it linearly"
    )
    init_std: Positive = setting(
        "Standard deviation of the encoder's initial weights; narrow encoders need more than 0.02"
    )
    predictor: PredictorConfig = setting("")
    activation_checkpointing: bool = setting(
        "Keep only what enters a block and compute the rest again in the backward pass: less "
        "memory for about a third more time",
        OPERATIONAL,
    )
    compile: Auto = setting(
        "`torch.compile` the blocks: `true`, `false`, or `auto`, which does on GPUs in stages of "
        "1,000 steps and more, where a C++ compiler is found",
        OPERATIONAL,
    )


@dataclass(config=STRICT)
class DataConfig:
    """`method.data`: mixing, reading, caching, and the embedded set."""

    weights: list[Number] | None = setting(
        "One number for each entry of `input_dir`: how often it is drawn, with replacement; null: "
        "every video once an epoch",
        COMPARED,
    )
    reader: Literal["pyav", "auto", "decord"] = setting(
        "`pyav` reads exactly; `decord` refuses kinds of files in which it is not exact; `auto`: "
        "decord, and PyAV for these (docs/data.md)"
    )
    timeout: Positive | None = setting(
        "Seconds after which a file that is still being read is given up; null: never", OPERATIONAL
    )
    stall: Positive | None = setting(
        "Seconds to wait for a batch of the loader workers before the run ends; null: for ever",
        OPERATIONAL,
    )
    max_bad: Share = setting(
        "Share of the distinct files that may be unreadable; more end the run", OPERATIONAL
    )
    cache: bool = setting("Keep each decoded video whole in memory", OPERATIONAL)
    demo: dict[str, Any] = setting("The embedded set, of `input_dir=demo:train.csv`", COMPARED)


@dataclass(config=STRICT)
class OptimConfig:
    """`method.optim`: AdamW and its schedules."""

    betas: Betas = setting("Of AdamW")
    warmup_start: Share = setting(
        "Learning rate at the start of the warm-up, as a share of `optimizer.lr`"
    )
    warmup_steps: Count = setting("Steps of the warm-up")
    max_warmup_share: Share = setting(
        "Longest warm-up, as a share of a stage's steps; shortens it in short runs"
    )
    final_lr: Share = setting(
        "Learning rate at the end of the cosine, as a share of `optimizer.lr`; 1: constant after "
        "the warm-up"
    )
    final_weight_decay: NotNegative = setting(
        "Weight decay at the end of its cosine from `optimizer.weight_decay`"
    )
    clip_grad: Annotated[NotNegative, Field(title="0 (off) or more")] = setting(
        "Largest gradient norm; 0: no limit"
    )


@dataclass(config=STRICT)
class CheckpointConfig:
    """`method.checkpoint`: how often, in steps and in minutes."""

    every_n_steps: AtLeast1 = setting("How often `checkpoints/last.ckpt` is written", OPERATIONAL)
    every_minutes: Minutes = setting(
        "As many minutes, where that comes first; `0` or `null`: by steps alone", OPERATIONAL
    )


@dataclass(config=STRICT)
class TeacherConfig:
    """`method.teacher`: what stage 1 trains, or where the teacher lies."""

    encoder: str = setting(
        "Size of the teacher that stage 1 trains; by default that of the student"
    )
    max_steps: Whole = setting("Steps of stage 1")
    path: str | None = setting(
        "Run directory, encoder file or V-JEPA 2 weights of a teacher: skips stage 1; "
        "`method.teacher.encoder` is then not used"
    )


@dataclass(config=STRICT)
class MomentumConfig:
    """`method.momentum`: of the target's moving average, at the first step and the last."""

    start: Share = setting(
        "Momentum of the target's moving average at the first step; from 0 (a copy of the "
        "encoder) to 1 (never moved)"
    )
    end: Share = setting("The same at the end; linear in between")
