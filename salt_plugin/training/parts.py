"""What the stages of a run are made of; building it finds every mistake before training starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from salt_plugin.config import MethodConfig, RunConfig, build
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import MaskGenerator
from salt_plugin.shapes import EncoderShape, Grid, PredictorShape
from salt_plugin.transforms import SALTTransform

# Whether masks leave any context depends on the sizes drawn: enough draws find those that do not.
TRIAL_DRAWS = 200

Loss = TypeVar("Loss", PixelLoss, LatentLoss)


@dataclass(frozen=True)
class Parts:
    """The pieces that the configuration describes.

    Attributes:
        encoder: Shape of `method.encoder`.
        teacher: Shape of the encoder that stage 1 trains.
        predictor: Shape of predictor and pixel decoder.
        grid: Token grid of a clip.
        masks: Draws the mask sets.
        transform: Augments a clip.
        pixel_loss: None where no pixels are predicted.
        latent_loss: None where no latents are predicted.
    """

    encoder: EncoderShape
    teacher: EncoderShape
    predictor: PredictorShape
    grid: Grid
    masks: MaskGenerator
    transform: SALTTransform
    pixel_loss: PixelLoss | None
    latent_loss: LatentLoss | None

    def trained(self, stage: str) -> EncoderShape:
        """Returns the shape of the encoder that a stage trains."""
        return {"teacher": self.teacher, "student": self.encoder}[stage]


def build_parts(config: RunConfig) -> Parts:
    """Builds the pieces of a run.

    Raises:
        ConfigError: The first value that cannot work.
    """
    method, model = config.method, config.method.model
    tubelet = {"patch_size": model.patch_size, "tubelet_size": model.tubelet_size}
    encoder = EncoderShape.named(method.encoder, "method.encoder", **tubelet)
    teacher = encoder
    if hasattr(method, "teacher"):
        teacher = EncoderShape.named(method.teacher.encoder, "method.teacher.encoder", **tubelet)
    grid = encoder.grid(method.clip.frames, method.clip.size, method.clip.size)
    masks: MaskGenerator = build(method.masks, "method.masks", MaskGenerator)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(TRIAL_DRAWS):
        drawn = masks(1, grid, generator)
    predictor = PredictorShape(
        model.predictor.dim,
        model.predictor.depth,
        model.predictor.num_heads,
        num_mask_tokens=len(drawn),
    )
    return Parts(
        encoder=encoder,
        teacher=teacher,
        predictor=predictor,
        grid=grid,
        masks=masks,
        transform=build(method.transform, "method.transform", SALTTransform, size=method.clip.size),
        pixel_loss=_loss(method, "pixel_loss", PixelLoss),
        latent_loss=_loss(method, "loss", LatentLoss),
    )


def _loss(method: MethodConfig, key: str, expected: type[Loss]) -> Loss | None:
    """Builds a loss of a method that has it."""
    node = getattr(method, key, None)
    return None if node is None else build(node, f"method.{key}", expected)
