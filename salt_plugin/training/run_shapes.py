"""The shapes and masks of a run; no torch, so that planning can read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from salt_plugin.config import RunConfig, build, registry
from salt_plugin.masks import MaskGenerator
from salt_plugin.shapes import EncoderShape, Grid, PredictorShape, ProjectorShape


@dataclass(frozen=True)
class RunShapes:
    """The shapes and masks that a configuration describes.

    Attributes:
        encoder: Shape of `method.encoder`.
        teacher: Shape of the encoder that stage 1 trains.
        predictor: The node `method.model.predictor`, as far as it is about the shape.
        grid: Token grid of a clip.
        masks: Draws the mask sets.
        projector: Shape of the projector, where the method has one.
    """

    encoder: EncoderShape
    teacher: EncoderShape
    predictor: Mapping[str, int | None]
    grid: Grid
    masks: MaskGenerator
    projector: ProjectorShape

    def trained(self, stage: str) -> EncoderShape:
        """Returns the shape of the encoder that a stage trains."""
        return {"teacher": self.teacher, "student": self.encoder}[stage]

    def predictor_of(self, encoder: EncoderShape) -> PredictorShape:
        """Returns the shape of the predictor or pixel decoder of an encoder."""
        return PredictorShape.beside(encoder, self.masks.num_sets, **self.predictor)


def run_shapes(config: RunConfig) -> RunShapes:
    """Returns the shapes and masks of a run.

    Raises:
        ConfigError: The first value that cannot work.
    """
    method, model = config.method, config.method.model
    options = {
        "patch_size": model.patch_size,
        "tubelet_size": model.tubelet_size,
        "cls_token": registry.get(method.name).cls_token,
        "block_causal": getattr(model, "block_causal", False),
    }
    encoder = EncoderShape.named(method.encoder, "method.encoder", **options)
    teacher = encoder
    if hasattr(method, "teacher"):
        teacher = EncoderShape.named(method.teacher.encoder, "method.teacher.encoder", **options)
    predictor = asdict(model.predictor)
    del predictor["init_std"]
    return RunShapes(
        encoder=encoder,
        teacher=teacher,
        predictor=predictor,
        grid=encoder.grid(method.clip.frames, method.clip.size, method.clip.size),
        masks=build(method.masks, "method.masks", MaskGenerator),
        projector=_projector(getattr(method, "projector", None)),
    )


def _projector(node: Any) -> ProjectorShape:
    if node is None:
        return ProjectorShape()  # of a method without one, which does not price it
    return ProjectorShape(node.hidden_dim, node.out_dim, node.directions)
