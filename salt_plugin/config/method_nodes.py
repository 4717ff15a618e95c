"""The keys of the nodes under `method`: types, ranges, meanings and marks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.config.values import (
    ALIKE,
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
)

Betas = Annotated[
    list[Annotated[Number, Field(ge=0, lt=1)]],
    Field(min_length=2, max_length=2, title="two numbers from 0 to below 1"),
]
Minutes = Annotated[NotNegative | None, Field(title="0 or null (off), or more")]


@dataclass(config=STRICT)
class ClipConfig:
    """`method.clip`: frames of a clip, their size, and how far apart they are.

    Attributes:
        frames: Frames of a clip; a multiple of `method.model.tubelet_size`.
        size: Height and width of a clip in pixels; a multiple of `method.model.patch_size`.
        step: Frames of the video from one frame of the clip to the next.
        fps: Set: sample by time at this rate instead; `method.clip.step` is then not used.
    """

    frames: Annotated[AtLeast1, COMPARED]
    size: Annotated[AtLeast1, COMPARED]
    step: Annotated[AtLeast1, COMPARED]
    fps: Annotated[Positive | None, COMPARED]


@dataclass(config=STRICT)
class PredictorConfig:
    """`method.model.predictor`: shape of the predictor and of the pixel decoder.

    Attributes:
        dim: Width of the predictor, and of the decoder that predicts pixels; null: 384, or half the
            width of an encoder narrower than ViT-B.
        depth: Blocks of both; null: 12, or those of an encoder of fewer.
        num_heads: Attention heads of both; null: heads of 32 channels.
        init_std: Standard deviation of the initial weights of both.
    """

    dim: Annotated[AtLeast1 | None, ALIKE]
    depth: Annotated[AtLeast1 | None, ALIKE]
    num_heads: Annotated[AtLeast1 | None, ALIKE]
    init_std: Annotated[Positive, ALIKE]


@dataclass(config=STRICT)
class ModelConfig:
    """`method.model`: tubelet, predictor, stochastic depth, and how it is executed.

    Attributes:
        patch_size: Side of a tubelet in pixels.
        tubelet_size: Frames of a tubelet.
        drop_path: Stochastic depth rate of the last encoder block; earlier blocks rise to it
            linearly.
        init_std: Standard deviation of the encoder's initial weights; narrow encoders need more
            than 0.02.
        activation_checkpointing: Keep only what enters a block and compute the rest again in the
            backward pass: less memory for about a third more time.
        compile: `torch.compile` the blocks: `true`, `false`, or `auto`, which does on GPUs in
            stages of 1,000 steps and more, where a C++ compiler is found.
    """

    patch_size: Annotated[AtLeast1, COMPARED]
    tubelet_size: Annotated[AtLeast1, COMPARED]
    drop_path: Annotated[Rate, ALIKE]
    init_std: Annotated[Positive, ALIKE]
    predictor: PredictorConfig
    activation_checkpointing: Annotated[bool, OPERATIONAL]
    compile: Annotated[Auto, OPERATIONAL]


@dataclass(config=STRICT)
class LeVJEPAModelConfig(ModelConfig):
    """`method.model` of LeVJEPA.

    Attributes:
        block_causal: Whether tokens attend to their own frame and earlier ones only (`[cls]` to
            all).
    """

    block_causal: bool


@dataclass(config=STRICT)
class ProjectorConfig:
    """`method.projector`: from `[cls]` to embeddings, and what these are held to.

    Attributes:
        hidden_dim: Width of the hidden layer.
        out_dim: Width of an embedding.
        directions: Random directions along which SIGReg compares embeddings with a Gaussian.
        sync_batch_norm: Whether BatchNorm takes its statistics over all devices; else each device's
            own.
    """

    hidden_dim: AtLeast1
    out_dim: AtLeast1
    directions: AtLeast1
    sync_batch_norm: bool


@dataclass(config=STRICT)
class DataConfig:
    """`method.data`: mixing, reading, caching, and the embedded set.

    Attributes:
        weights: One number for each entry of `input_dir`: how often it is drawn, with replacement;
            null: every video once an epoch.
        reader: `pyav` reads exactly; `decord` refuses kinds of files in which it is not exact;
            `auto`: decord, and PyAV for these (docs/data.md).
        timeout: Seconds after which a file that is still being read is given up; null: never.
        stall: Seconds to wait for a batch of the loader workers before the run ends; null: for
            ever.
        max_bad: Share of the distinct files that may be unreadable; more end the run.
        cache: Keep each decoded video whole in memory.
        demo: The embedded set, of `input_dir=demo:train.csv`.
    """

    weights: Annotated[list[Number] | None, COMPARED]
    reader: Annotated[Literal["pyav", "auto", "decord"], ALIKE]
    timeout: Annotated[Positive | None, OPERATIONAL]
    stall: Annotated[Positive | None, OPERATIONAL]
    max_bad: Annotated[Share, OPERATIONAL]
    cache: Annotated[bool, OPERATIONAL]
    demo: Annotated[dict[str, Any], COMPARED]


@dataclass(config=STRICT)
class OptimConfig:
    """`method.optim`: AdamW and its schedules.

    Attributes:
        betas: Of AdamW.
        warmup_start: Learning rate at the start of the warm-up, as a share of `optimizer.lr`.
        warmup_steps: Steps of the warm-up.
        max_warmup_share: Longest warm-up, as a share of a stage's steps; shortens it in short runs.
        final_lr: Learning rate at the end of the cosine, as a share of `optimizer.lr`; 1: constant
            after the warm-up.
        cooldown_share: Share of a stage's steps (or budget), the last ones, in which the learning
            rate goes linearly from where its cosine ends to `cooldown_lr`; 0: no cool-down.
        cooldown_lr: Learning rate at the end of the cool-down, as a share of `optimizer.lr`.
        final_weight_decay: Weight decay at the end of its cosine from `optimizer.weight_decay`.
        stretch: The schedules of learning rate, weight decay and EMA are made for so many times
            their steps, and stop before they are through (V-JEPA's `ipe_scale`, 1.25); 1: they
            end with the steps.
        clip_grad: Largest gradient norm; 0: no limit.
        clip_each: Whether encoder and predictor (decoder, projector) are clipped each by its own
            norm, instead of both by one.
        clip_after: Clipping begins after so many times the warm-up's steps.
    """

    betas: Betas
    warmup_start: Share
    warmup_steps: Count
    max_warmup_share: Share
    final_lr: Share
    cooldown_share: Share
    cooldown_lr: Share
    final_weight_decay: NotNegative
    stretch: Annotated[Number, Field(ge=1)]
    clip_grad: Annotated[NotNegative, Field(title="0 (off) or more")]
    clip_each: bool
    clip_after: NotNegative


@dataclass(config=STRICT)
class CheckpointConfig:
    """`method.checkpoint`: how often, in steps and in minutes.

    Attributes:
        every_n_steps: How often `checkpoints/last.ckpt` is written.
        every_minutes: As many minutes, where that comes first; `0` or `null`: by steps alone.
        keep_every: Set: how often, in steps, a checkpoint is kept for good as
            `checkpoints/step-N.ckpt`, for `method.continue_from`; each is as large as `last.ckpt`.
    """

    every_n_steps: Annotated[AtLeast1, OPERATIONAL]
    every_minutes: Annotated[Minutes, OPERATIONAL]
    keep_every: Annotated[AtLeast1 | None, OPERATIONAL]


@dataclass(config=STRICT)
class MonitorConfig:
    """`method.monitor`: labelled videos on which the encoder is looked at while it is trained.

    Attributes:
        train: Set to watch the encoder in training: videos to learn from, a folder or a CSV (`path
            label`).
        test: Videos to score on, likewise.
        every: How often, in steps; the last step is always looked at.
        videos: How many of each list at most, the first of each class; they are kept in memory.
    """

    train: Annotated[str | None, OPERATIONAL]
    test: Annotated[str | None, OPERATIONAL]
    every: Annotated[AtLeast1, OPERATIONAL]
    videos: Annotated[Whole, Field(ge=2), OPERATIONAL]


@dataclass(config=STRICT)
class TeacherConfig:
    """`method.teacher`: what stage 1 trains, or where the teacher lies.

    Attributes:
        encoder: Size of the teacher that stage 1 trains; by default that of the student.
        max_steps: Steps of stage 1.
        path: Run directory (what the run was for: its student, where it has one; `RUN/teacher`
            names the other), encoder file, V-JEPA 2 weights or Hugging Face folder of a teacher, or
            `timm:NAME[:FILE]`, an image model: skips stage 1; `method.teacher.encoder` is then not
            used.
    """

    encoder: str
    max_steps: Whole
    path: str | None


@dataclass(config=STRICT)
class MomentumConfig:
    """`method.momentum`: of the EMA encoder, at the first step and the last.

    Attributes:
        start: Momentum of the EMA encoder at the first step; from 0 (a copy of the
            encoder) to 1 (never moved).
        end: The same at the end; linear in between.
    """

    start: Share
    end: Share
