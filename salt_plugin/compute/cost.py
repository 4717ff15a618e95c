"""Floating-point operations of a training step, as a closed form in its token counts.

Convention `exact`: matrix products and attention, one multiply-add = 2 FLOPs, backward counted as
twice forward; normalisation, activations and the optimiser left out. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from salt_plugin.shapes import EncoderShape, PredictorShape

FLOPS_PER_MULTIPLY_ADD = 2
FORWARD_AND_BACKWARD = 3


class Tokens(NamedTuple):
    """Token counts of one clip in one mask set."""

    context: int
    target: int


def _blocks(tokens: int, dim: int, hidden: int, depth: int) -> int:
    """Multiply-adds of `depth` blocks: four projections, the MLP, and attention's two products."""
    return depth * (tokens * (4 * dim**2 + 2 * dim * hidden) + 2 * tokens**2 * dim)


def encoder_forward(shape: EncoderShape, tokens: int) -> int:
    """FLOPs of encoding `tokens` tokens of one clip, embedding only those."""
    embed = tokens * shape.patch_dim * shape.embed_dim
    blocks = _blocks(tokens, shape.embed_dim, shape.hidden_dim, shape.depth)
    return FLOPS_PER_MULTIPLY_ADD * (embed + blocks)


def predictor_forward(shape: PredictorShape, context_dim: int, out_dim: int, tokens: Tokens) -> int:
    """FLOPs of predicting the targets of one clip in one mask set."""
    embed = tokens.context * context_dim * shape.dim
    blocks = _blocks(tokens.context + tokens.target, shape.dim, shape.hidden_dim, shape.depth)
    project = tokens.target * shape.dim * out_dim
    return FLOPS_PER_MULTIPLY_ADD * (embed + blocks + project)


def pixel_teacher_step(
    encoder: EncoderShape, decoder: PredictorShape, clips: int, masks: Sequence[Tokens]
) -> dict[str, int]:
    """FLOPs of one step of stage 1 by part."""
    trained = FORWARD_AND_BACKWARD * clips
    return {
        "encoder": trained * sum(encoder_forward(encoder, m.context) for m in masks),
        "decoder": trained
        * sum(predictor_forward(decoder, encoder.embed_dim, encoder.patch_dim, m) for m in masks),
    }


def salt_step(
    student: EncoderShape,
    predictor: PredictorShape,
    teacher: EncoderShape,
    clips: int,
    clip_tokens: int,
    masks: Sequence[Tokens],
) -> dict[str, int]:
    """FLOPs of one step of stage 2 by part; the teacher sees the whole clip once."""
    trained = FORWARD_AND_BACKWARD * clips
    return {
        "teacher_forward": clips * encoder_forward(teacher, clip_tokens),
        "encoder": trained * sum(encoder_forward(student, m.context) for m in masks),
        "predictor": trained
        * sum(predictor_forward(predictor, student.embed_dim, teacher.embed_dim, m) for m in masks),
    }
