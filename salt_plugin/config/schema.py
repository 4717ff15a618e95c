"""The keys of a run: their types, ranges, meanings and marks; `conf/` holds the defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.config.method_nodes import (
    CheckpointConfig,
    ClipConfig,
    DataConfig,
    LeVJEPAModelConfig,
    ModelConfig,
    MomentumConfig,
    MonitorConfig,
    OptimConfig,
    ProjectorConfig,
    TeacherConfig,
)
from salt_plugin.config.values import (
    ALIKE,
    COMPARED,
    OPERATIONAL,
    STRICT,
    AtLeast1,
    Count,
    Limit,
    NotNegative,
    Part,
    Positive,
    Rate,
    Seed,
    Whole,
    Workers,
    holds,
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
Logger = Literal["tensorboard", "csv", "wandb"]


@dataclass(config=STRICT)
class LoaderConfig:
    """`loader`, the host's: batch size of a device, and how it is loaded.

    Attributes:
        batch_size: Clips that a device holds at once; a larger step takes several micro-batches.
        shuffle: Permute the videos anew in each epoch; no effect with `method.data.weights`.
        num_workers: Loader processes; -1: one for each core.
        prefetch_factor: Batches that each loader process makes ahead; null: 2. Only with loader
            processes.
        drop_last: Whether a partial batch counts in the steps of `trainer.max_epochs`; batches are
            always full and run across epochs.
    """

    batch_size: Annotated[AtLeast1, OPERATIONAL]
    shuffle: Annotated[bool, ALIKE]
    num_workers: Annotated[Workers, OPERATIONAL]
    prefetch_factor: Annotated[AtLeast1 | None, OPERATIONAL]
    drop_last: bool


@dataclass(config=STRICT)
class TrainerConfig:
    """`trainer`, the host's, with `max_steps`.

    Attributes:
        gpus: GPUs that train together; 0, or where there is none: the CPU.
        max_epochs: Limit on the steps in epochs; -1: none. The smaller of the two limits holds.
        max_steps: Steps, under `salt` of the student; -1: by `trainer.max_epochs` alone. By default
            `method.default_steps`.
        strategy: What several devices hold: `ddp`, each everything; `fsdp2`, each a part of the
            weights that are trained, their gradients, the optimiser's state and the moving average.
        precision: As PyTorch Lightning names it.
        enable_model_summary: Print a table of modules at the start.
        logger: What else gets each row of `metrics.csv`: Lightning's logger of that name, or those
            of a list; `[]`: none.
    """

    gpus: Annotated[Count, OPERATIONAL]
    max_epochs: Limit
    max_steps: Steps
    strategy: Annotated[Literal["ddp", "fsdp2"], OPERATIONAL]
    precision: Annotated[Precision, ALIKE]
    enable_model_summary: Annotated[bool, OPERATIONAL]
    logger: Annotated[
        Logger | list[Logger],
        Field(title="tensorboard, csv or wandb, or a list of these"),
        OPERATIONAL,
    ]


@dataclass(config=STRICT)
class OptimizerConfig:
    """`optimizer`, the host's.

    Attributes:
        lr: Peak learning rate, at the batch size in use: it is not rescaled.
        weight_decay: Weight decay at the start of its schedule; norms and biases have none.
    """

    lr: Positive
    weight_decay: NotNegative


@dataclass(config=STRICT)
class ComputeConfig:
    """`compute`: FLOPs that a run may spend instead of a number of steps.

    Attributes:
        budget: If set, the run ends after so many FLOPs (`exact`, those of its teacher and of the
            weights it starts from included) in place of steps; schedules follow what is spent
            (docs/compute.md).
        teacher_share: Of `salt`: share of the budget that stage 1 gets, unless
            `method.teacher.path` is given.
    """

    budget: Positive | None
    teacher_share: Part


@dataclass(config=STRICT)
class MethodConfig:
    """What every `method` has; nodes with a `_target_` stay as they are.

    Attributes:
        name: Name of the method.
        default_steps: What `trainer.max_steps` is when it is not given.
        continue_from: Run directory, folder of a stage, or full checkpoint whose encoder, predictor
            and optimiser state this run starts with, in place of `checkpoint`; steps and schedules
            count from its own first step (docs/run.md).
        encoder: Size of the encoder that is trained, under `salt` of the student: `vit_nano`,
            `vit_tiny`, `vit_small`, `vit_base`, `vit_large`, `vit_huge`, `vit_giant` or
            `vit_gigantic`.
        global_batch_size: Clips of a step over all devices, which hold up to `loader.batch_size` at
            once; null: as many as they hold at once. The run stores it, so that it can go on with
            another number of devices.
        mask_group: Clips whose masks are drawn together and cut to the shortest, at most; a larger
            group leaves the encoder fewer tokens.
        transform: Augmentation.
        max_nonfinite_steps: So many steps in a row whose loss or gradients are not finite end the
            run; the update of such a step is left out, and `nonfinite.json` lists its files.
        encoders_every_n_steps: Set: how often the encoder is kept on its way, in the last stage's
            folder as `encoders/step-N.safetensors`, and at the last step (docs/tracking.md); under
            `vjepa`, `vjepa2` and `levjepa` the moving average.
        probe: Set to probe the frozen encoders on at the end: `demo`, or another of
            docs/evaluation.md; null: none.
        probe_train: Its training list, a folder or a CSV (`path label`), where the set has none.
        probe_test: Its test list, likewise.
        probe_protocol: How its encoders are probed; no effect on `demo`, which has its own.
    """

    name: str
    default_steps: Whole
    continue_from: str | None
    encoder: str
    global_batch_size: Annotated[AtLeast1 | None, COMPARED]
    mask_group: Annotated[AtLeast1, COMPARED]
    clip: ClipConfig
    model: ModelConfig
    transform: Annotated[dict[str, Any], ALIKE]
    data: DataConfig
    optim: OptimConfig
    checkpoint: CheckpointConfig
    monitor: MonitorConfig
    max_nonfinite_steps: Annotated[AtLeast1, OPERATIONAL]
    encoders_every_n_steps: Annotated[AtLeast1 | None, OPERATIONAL]
    probe: str | None
    probe_train: str | None
    probe_test: str | None
    probe_protocol: Literal["attentive", "linear", "knn", "all"]


@dataclass(config=STRICT)
class MaskedConfig(MethodConfig):
    """What every `method` has that shows its encoder a part of a clip.

    Attributes:
        masks: Masks; `method/masks=NAME` selects others.
    """

    masks: Annotated[dict[str, Any], ALIKE]


@dataclass(config=STRICT)
class PixelTeacherConfig(MaskedConfig):
    """`method` of `method=pixel_teacher` and of `method=videomae`.

    Attributes:
        pixel_loss: Loss of predicted pixels.
    """

    pixel_loss: dict[str, Any]


@dataclass(config=STRICT)
class SALTConfig(MaskedConfig):
    """`method` of `method=salt`.

    Attributes:
        ema: Largest momentum of a moving average of the student, which is kept beside it
            (`student/ema.safetensors`) for evaluations and plays no part in training; it is booked
            as an evaluation, outside the budget. 0: none.
        loss: Loss of predicted latents.
        pixel_loss: Loss of stage 1.
    """

    teacher: TeacherConfig
    ema: Rate
    loss: dict[str, Any]
    pixel_loss: dict[str, Any]


@dataclass(config=STRICT)
class VJEPAConfig(MaskedConfig):
    """`method` of `method=vjepa` and of `method=vjepa2`.

    Attributes:
        loss: Loss of predicted latents.
    """

    momentum: MomentumConfig
    loss: dict[str, Any]


@dataclass(config=STRICT)
class LeVJEPAConfig(MaskedConfig):
    """`method` of `method=levjepa`.

    Attributes:
        sigreg_weight: Weight of SIGReg beside the distance between views.
        ema: Largest momentum of the encoder's moving average, which is kept and evaluated and plays
            no part in training; 0: the encoder itself is kept.
    """

    model: LeVJEPAModelConfig
    projector: ProjectorConfig
    sigreg_weight: NotNegative
    ema: Rate


@dataclass(config=STRICT)
class RunConfig:
    """Everything that a run depends on.

    Attributes:
        input_dir: Required: a folder of videos, a list (`path label` lines or columns), a video, or
            several of these; `demo:FILE`: a list of the demo set.
        checkpoint: Encoder file, run directory or V-JEPA 2 weights: initial weights of the encoder
            that is trained, under `salt` of the student. `finetune` needs one; null: random
            weights.
        seed: Seed of initialisation, data order, augmentation and masks.
    """

    method: Any
    input_dir: Annotated[Inputs, COMPARED]
    checkpoint: Annotated[str | None, ALIKE]
    seed: Seed
    loader: LoaderConfig
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    compute: ComputeConfig
