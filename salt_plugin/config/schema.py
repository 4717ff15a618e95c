"""The types of a run's configuration; `conf/` holds the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class LoaderConfig:
    """`loader`, the host's: batch size of a device, and how it is loaded."""

    batch_size: int
    shuffle: bool
    num_workers: int
    prefetch_factor: int | None
    drop_last: bool


@dataclass
class TrainerConfig:
    """`trainer`, the host's, with `max_steps`."""

    gpus: int
    max_epochs: int
    max_steps: int
    precision: Any
    enable_model_summary: bool


@dataclass
class OptimizerConfig:
    """`optimizer`, the host's."""

    lr: float
    weight_decay: float


@dataclass
class ClipConfig:
    """`method.clip`: frames of a clip, their size, and how far apart they are."""

    frames: int
    size: int
    step: int
    fps: float | None


@dataclass
class PredictorConfig:
    """`method.model.predictor`: shape of the predictor and of the pixel decoder."""

    dim: int
    depth: int
    num_heads: int
    init_std: float


@dataclass
class ModelConfig:
    """`method.model`: tubelet, predictor, stochastic depth, and how it is executed."""

    patch_size: int
    tubelet_size: int
    drop_path: float
    init_std: float
    predictor: PredictorConfig
    activation_checkpointing: bool
    compile: Any


@dataclass
class DataConfig:
    """`method.data`: mixing, reading, caching, and the embedded set."""

    weights: list[float] | None
    reader: str
    timeout: float | None
    stall: float | None
    max_bad: float
    cache: bool
    demo: dict[str, Any]


@dataclass
class OptimConfig:
    """`method.optim`: AdamW and its schedules."""

    betas: list[float]
    warmup_start: float
    warmup_steps: int
    max_warmup_share: float
    final_lr: float
    final_weight_decay: float
    clip_grad: float


@dataclass
class CheckpointConfig:
    """`method.checkpoint`: how often, in steps and in minutes."""

    every_n_steps: int
    every_minutes: float | None


@dataclass
class TeacherConfig:
    """`method.teacher`: what stage 1 trains, or where the teacher lies."""

    encoder: str
    max_steps: int
    path: str | None


@dataclass
class MomentumConfig:
    """`method.momentum`: of the target's moving average, at the first step and the last."""

    start: float
    end: float


@dataclass
class MethodConfig:
    """What every `method` has; nodes with a `_target_` stay as they are."""

    name: str
    default_steps: int
    encoder: str
    global_batch_size: int | None
    clip: ClipConfig
    model: ModelConfig
    transform: dict[str, Any]
    data: DataConfig
    optim: OptimConfig
    checkpoint: CheckpointConfig
    max_nonfinite_steps: int
    encoders_every_n_steps: int | None
    probe: str | None
    probe_train: str | None
    probe_test: str | None
    probe_protocol: str
    masks: dict[str, Any]


@dataclass
class PixelTeacherConfig(MethodConfig):
    """`method` of `method=pixel_teacher` and of `method=videomae`."""

    pixel_loss: dict[str, Any]


@dataclass
class SALTConfig(MethodConfig):
    """`method` of `method=salt`."""

    teacher: TeacherConfig
    loss: dict[str, Any]
    pixel_loss: dict[str, Any]


@dataclass
class VJEPAConfig(MethodConfig):
    """`method` of `method=vjepa` and of `method=vjepa2`."""

    momentum: MomentumConfig
    loss: dict[str, Any]


@dataclass
class ComputeConfig:
    """`compute`: FLOPs that a run may spend instead of a number of steps."""

    budget: float | None
    teacher_share: float


@dataclass
class RunConfig:
    """Everything that a run depends on."""

    method: Any
    input_dir: Any
    checkpoint: str
    seed: int
    loader: LoaderConfig
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    compute: ComputeConfig
