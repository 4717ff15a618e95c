"""The shapes and masks of a run; no torch, so that planning can read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from salt_plugin.config import RunConfig, build, registry
from salt_plugin.masks import MaskGenerator, TokenDropping
from salt_plugin.shapes import EncoderShape, Grid, HeadShape, PredictorShape, ProjectorShape


@dataclass(frozen=True)
class RunShapes:
    """The shapes and masks that a configuration describes.

    Attributes:
        encoder: Shape of `method.encoder`.
        teacher: Shape of the encoder that stage 1 trains.
        predictor: The node `method.model.predictor`, as far as it is about the shape.
        grid: Token grid of a clip.
        masks: Draws the mask sets; of a method without masks one, of all tokens.
        projector: Shape of the projector, where the method has one.
        head: Shape of the classifier, likewise.
    """

    encoder: EncoderShape
    teacher: EncoderShape
    predictor: Mapping[str, int | None]
    grid: Grid
    masks: MaskGenerator
    projector: ProjectorShape
    head: HeadShape

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
    spec = registry.get(method.name)
    options = {
        "patch_size": model.patch_size,
        "tubelet_size": model.tubelet_size,
        "cls_token": getattr(model, "cls_token", spec.cls_token),
        "block_causal": getattr(model, "block_causal", False),
    }
    encoder = EncoderShape.named(method.encoder, "method.encoder", **options)
    teacher = encoder
    if hasattr(method, "teacher"):
        teacher = EncoderShape.named(method.teacher.encoder, "method.teacher.encoder", **options)
    predictor = asdict(model.predictor)
    del predictor["init_std"]
    grid = encoder.grid(method.clip.frames, method.clip.size, method.clip.size)
    return RunShapes(
        encoder=encoder,
        teacher=teacher,
        predictor=predictor,
        grid=grid,
        masks=_masks(getattr(method, "masks", None)),
        projector=_projector(getattr(method, "projector", None)),
        head=HeadShape(method.pool, method.classes, grid[0]) if spec.classifies else HeadShape(),
    )


def _masks(node: Any) -> MaskGenerator:
    if node is None:
        return TokenDropping(drop=0.0)
    masks: MaskGenerator = build(node, "method.masks", MaskGenerator)
    return masks


def _projector(node: Any) -> ProjectorShape:
    if node is None:
        return ProjectorShape()  # of a method without one, which does not price it
    return ProjectorShape(node.hidden_dim, node.out_dim, node.directions)
