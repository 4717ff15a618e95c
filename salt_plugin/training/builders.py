"""The methods made from the configuration, each by one function that its `MethodSpec` names.

Each takes the node `method`, the parts of the run, the encoder to be trained, the recipe, and the
frozen teacher, which is None unless the method has one trained before it.
"""

from __future__ import annotations

from typing import Any

from salt_plugin.config import MethodConfig
from salt_plugin.methods import SALT, VJEPA, PixelTeacher, Recipe
from salt_plugin.models import FrozenTeacher, Predictor, VideoEncoder
from salt_plugin.training.parts import Parts


def pixel_teacher(
    method: MethodConfig, parts: Parts, encoder: VideoEncoder, recipe: Recipe, teacher: None
) -> PixelTeacher:
    """Returns stage 1, or all of VideoMAE."""
    assert parts.pixel_loss is not None
    decoder = _predictor(method, parts, encoder.embed_dim, encoder.shape.patch_dim)
    return PixelTeacher(encoder, decoder, parts.pixel_loss, recipe)


def salt(
    method: MethodConfig,
    parts: Parts,
    encoder: VideoEncoder,
    recipe: Recipe,
    teacher: FrozenTeacher,
) -> SALT:
    """Returns stage 2."""
    assert parts.latent_loss is not None
    predictor = _predictor(method, parts, encoder.embed_dim, teacher.embed_dim)
    return SALT(encoder, predictor, teacher, parts.latent_loss, recipe)


def vjepa(method: Any, parts: Parts, encoder: VideoEncoder, recipe: Recipe, teacher: None) -> VJEPA:
    """Returns V-JEPA."""
    assert parts.latent_loss is not None
    predictor = _predictor(method, parts, encoder.embed_dim, encoder.embed_dim)
    momentum = method.momentum.start, method.momentum.end
    return VJEPA(encoder, predictor, parts.latent_loss, recipe, momentum)


def _predictor(method: MethodConfig, parts: Parts, context_dim: int, out_dim: int) -> Predictor:
    return Predictor(context_dim, out_dim, parts.predictor, method.model.predictor.init_std)
