"""The keys of `method=finetune`, which starts from an encoder that is given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from salt_plugin.config.method_nodes import ClipConfig, ModelConfig
from salt_plugin.config.schema import MethodConfig
from salt_plugin.config.values import (
    COMPARED,
    STRICT,
    AtLeast1,
    Limit,
    NotNegative,
    Number,
    Rate,
    Whole,
)

Classes = Annotated[Whole, Field(ge=2)]
LayerDecay = Annotated[Number, Field(gt=0, le=1, title="more than 0, up to 1")]


@dataclass(config=STRICT)
class GivenClipConfig(ClipConfig):
    """`method.clip` where an encoder is given; what is null is as on its card.

    Attributes:
        frames: Frames of a clip; a multiple of `method.model.tubelet_size`.
        size: Height and width of a clip in pixels; a multiple of `method.model.patch_size`.
        step: Frames of the video from one frame of the clip to the next.
    """

    frames: Annotated[AtLeast1 | None, COMPARED]  # type: ignore[assignment]
    size: Annotated[AtLeast1 | None, COMPARED]  # type: ignore[assignment]
    step: Annotated[AtLeast1 | None, COMPARED]  # type: ignore[assignment]


@dataclass(config=STRICT)
class GivenModelConfig(ModelConfig):
    """`method.model` where an encoder is given; what is null is the encoder's.

    Attributes:
        patch_size: Side of a tubelet in pixels.
        tubelet_size: Frames of a tubelet.
        cls_token: Whether the encoder has a `[cls]` token.
        block_causal: Whether tokens attend to their own frame and earlier ones only.
    """

    patch_size: Annotated[AtLeast1 | None, COMPARED]  # type: ignore[assignment]
    tubelet_size: Annotated[AtLeast1 | None, COMPARED]  # type: ignore[assignment]
    cls_token: bool | None
    block_causal: bool | None


@dataclass(config=STRICT)
class FineTuneConfig(MethodConfig):
    """`method` of `method=finetune`.

    Attributes:
        encoder: Size of the encoder; null: that of `checkpoint`.
        default_epochs: What `trainer.max_epochs` is when it is not given.
        classes: Number of classes; null: those of `input_dir`.
        val: List of videos with labels, on which the best weights are chosen; null: the last
            weights are kept.
        val_every_n_steps: How often the accuracy on it is taken, and at the first step and the last
            in any case; null: once an epoch.
        test: List of videos with labels, on which the weights that are kept are tested once, at
            the end.
        test_segments: Clips of a test video, spread over its length.
        test_crops: Crops of each clip, along the longer side.
        pool: What the linear classifier reads of the tokens: `mean`: their mean, or `[cls]` where
            the encoder has one; `time`: the mean over places at each time, one after the other;
            `attentive`: what the attentive probe pools by attention.
        layer_decay: The learning rate of a block is that of the block after it times this; 1: one
            rate.
        label_smoothing: Share of each label that all classes get alike.
        mixup: Alpha of mixup, over pairs of clips; 0: none.
        warm_start: Whether the classifier starts as a linear probe on the features of the encoder
            as given.
    """

    encoder: str | None  # type: ignore[assignment]
    clip: GivenClipConfig
    model: GivenModelConfig
    default_epochs: Limit
    classes: Classes | None
    val: str | None
    val_every_n_steps: AtLeast1 | None
    test: str | None
    test_segments: AtLeast1
    test_crops: AtLeast1
    pool: Literal["mean", "time", "attentive"]
    layer_decay: LayerDecay
    label_smoothing: Rate
    mixup: NotNegative
    warm_start: bool
