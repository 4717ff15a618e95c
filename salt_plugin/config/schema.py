"""The keys of a run: their types, ranges, meanings and marks; `conf/` holds the defaults."""

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
    Limit,
    NotNegative,
    Number,
    Part,
    Positive,
    Rate,
    Seed,
    Share,
    Whole,
    Workers,
    holds,
    setting,
)

Text = Annotated[str, Field(min_length=1)]
Inputs = Annotated[
    str | Annotated[list[Text], Field(min_length=1)],
    Field(title="a folder, a CSV, a video, or a list of these"),
]
Steps = Annotated[
    Whole,
    holds(lambda value: value >= 1 or value == -1),
    Field(title="at least 1, or -1 with trainer.max_epochs"),
]
Precision = Annotated[
    Literal[32, "32", "32-true", 16, "16", "16-mixed", "bf16", "bf16-mixed"],
    Field(title="one of 32, 32-true, 16, 16-mixed, bf16, bf16-mixed"),
]
Betas = Annotated[
    list[Annotated[Number, Field(ge=0, lt=1)]],
    Field(min_length=2, max_length=2, title="two numbers from 0 to below 1"),
]
Minutes = Annotated[NotNegative | None, Field(title="0 or null (off), or more")]


@dataclass(config=STRICT)
class LoaderConfig:
    """`loader`, the host's: batch size of a device, and how it is loaded."""

    batch_size: AtLeast1 = setting(
        "Clips that a device holds at once; of a step, unless `method.global_batch_size` is set",
        OPERATIONAL,
        COMPARED,
    )
    shuffle: bool = setting(
        "Permute the videos anew in each epoch; no effect with `method.data.weights`"
    )
    num_workers: Workers = setting("Loader processes; -1: one for each core", OPERATIONAL)
    prefetch_factor: AtLeast1 | None = setting(
        "Batches that each loader process makes ahead; null: 2. Only with loader processes",
        OPERATIONAL,
    )
    drop_last: bool = setting(
        "Whether a partial batch counts in the steps of `trainer.max_epochs`; batches are always "
        "full and run across epochs"
    )


@dataclass(config=STRICT)
class TrainerConfig:
    """`trainer`, the host's, with `max_steps`."""

    gpus: Count = setting(
        "GPUs that train together; 0, or where there is none: the CPU", OPERATIONAL, COMPARED
    )
    max_epochs: Limit = setting(
        "Limit on the steps in epochs; -1: none. The smaller of the two limits holds"
    )
    max_steps: Steps = setting(
        "Steps, under `salt` of the student; -1: by `trainer.max_epochs` alone. By default "
        "`method.default_steps`"
    )
    precision: Precision = setting("As PyTorch Lightning names it")
    enable_model_summary: bool = setting("Print a table of modules at the start", OPERATIONAL)


@dataclass(config=STRICT)
class OptimizerConfig:
    """`optimizer`, the host's."""

    lr: Positive = setting("Peak learning rate, at the batch size in use: it is not rescaled")
    weight_decay: NotNegative = setting(
        "Weight decay at the start of its schedule; norms and biases have none"
    )


@dataclass(config=STRICT)
class ComputeConfig:
    """`compute`: FLOPs that a run may spend instead of a number of steps."""

    budget: Positive | None = setting(
        "Set: FLOPs that the run may spend, `exact` and on the whole bill, in place of steps: it "
        "ends at the last step that fits, and schedules follow what is spent (docs/compute.md)"
    )
    teacher_share: Part = setting(
        "Of `salt`: share of the budget that stage 1 gets, unless `method.teacher.path` is given"
    )


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

    dim: AtLeast1 = setting("Width of the predictor, and of the decoder that predicts pixels")
    depth: AtLeast1 = setting("Blocks of both")
    num_heads: AtLeast1 = setting("Attention heads of both")
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


@dataclass(config=STRICT)
class MethodConfig:
    """What every `method` has; nodes with a `_target_` stay as they are."""

    name: str = setting("Name of the method")
    default_steps: Whole = setting("What `trainer.max_steps` is when it is not given")
    encoder: str = setting(
        "Size of the encoder that is trained, under `salt` of the student: `vit_nano`, "
        "`vit_tiny`, `vit_small`, `vit_base`, `vit_large`, `vit_huge`, `vit_giant` or "
        "`vit_gigantic`"
    )
    global_batch_size: AtLeast1 | None = setting(
        "Set: clips of a step over all processes, in place of `loader.batch_size`; batch and "
        "learning rate then do not depend on how many train together. A multiple of their number",
        COMPARED,
    )
    clip: ClipConfig = setting("", COMPARED)
    model: ModelConfig = setting("")
    transform: dict[str, Any] = setting("Augmentation")
    data: DataConfig = setting("")
    optim: OptimConfig = setting("")
    checkpoint: CheckpointConfig = setting("")
    max_nonfinite_steps: AtLeast1 = setting(
        "So many steps in a row whose loss or gradients are not finite end the run; the update of "
        "such a step is left out, and `nonfinite.json` lists its files",
        OPERATIONAL,
    )
    encoders_every_n_steps: AtLeast1 | None = setting(
        "Set: how often the encoder is kept on its way, in the last stage's folder as "
        "`encoders/step-N.safetensors`, and at the last step (docs/tracking.md); under `vjepa` "
        "and `vjepa2` the moving average",
        OPERATIONAL,
    )
    probe: str | None = setting(
        "Set to probe the frozen encoders on at the end: `demo`, or another of "
        "docs/evaluation.md; null: none"
    )
    probe_train: str | None = setting(
        "Its training list, a folder or a CSV (`path label`), where the set has none"
    )
    probe_test: str | None = setting("Its test list, likewise")
    probe_protocol: Literal["attentive", "linear", "knn", "all"] = setting(
        "How its encoders are probed; no effect on `demo`, which has its own"
    )
    masks: dict[str, Any] = setting("Masks; `method/masks=NAME` selects others")


@dataclass(config=STRICT)
class PixelTeacherConfig(MethodConfig):
    """`method` of `method=pixel_teacher` and of `method=videomae`."""

    pixel_loss: dict[str, Any] = setting("Loss of predicted pixels")


@dataclass(config=STRICT)
class SALTConfig(MethodConfig):
    """`method` of `method=salt`."""

    teacher: TeacherConfig = setting("")
    loss: dict[str, Any] = setting("Loss of predicted latents")
    pixel_loss: dict[str, Any] = setting("Loss of stage 1")


@dataclass(config=STRICT)
class VJEPAConfig(MethodConfig):
    """`method` of `method=vjepa` and of `method=vjepa2`."""

    momentum: MomentumConfig = setting("")
    loss: dict[str, Any] = setting("Loss of predicted latents")


@dataclass(config=STRICT)
class RunConfig:
    """Everything that a run depends on."""

    method: Any = setting("")
    input_dir: Inputs = setting(
        "Required: a folder of videos, a list (`path label` lines or columns), a video, or several "
        "of these; `demo:FILE`: a list of the demo set",
        COMPARED,
    )
    checkpoint: str = setting(
        "Encoder file, run directory or V-JEPA 2 weights: initial weights of the encoder that is "
        "trained, under `salt` of the student"
    )
    seed: Seed = setting("Seed of initialisation, data order, augmentation and masks")
    loader: LoaderConfig = setting("")
    trainer: TrainerConfig = setting("")
    optimizer: OptimizerConfig = setting("")
    compute: ComputeConfig = setting("")
