"""Floating-point operations of a training step, as a closed form in its token counts.

Convention `exact`: matrix products and attention, one multiply-add = 2 FLOPs, backward counted as
twice forward, and the update of an EMA teacher; normalisation, activations and the optimiser left
out. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

from salt_plugin.shapes import (
    ATTENTIVE_DEPTH,
    ATTENTIVE_MLP_RATIO,
    CountedShape,
    EncoderShape,
    GroupTokens,
    HeadShape,
    PredictorShape,
    ProjectorShape,
    Tokens,
)

FLOPS_PER_MULTIPLY_ADD = 2
FORWARD_AND_BACKWARD = 3
# Teacher + (1 - momentum) * (student - teacher): a subtraction and a multiply-add.
FLOPS_PER_EMA_PARAMETER = 3


def _blocks(tokens: int, dim: int, hidden: int, depth: int) -> int:
    """Multiply-adds of `depth` blocks: four projections, the MLP, and attention's two products."""
    return depth * (tokens * (4 * dim**2 + 2 * dim * hidden) + 2 * tokens**2 * dim)


def encoder_forward(shape: EncoderShape | CountedShape, tokens: int) -> int:
    """FLOPs of encoding `tokens` tokens of one clip, embedding only those, and its `[cls]`.

    Block-causal attention costs what full attention does: masked scores are computed as well. Of an
    encoder that is none of ours it is what was counted of a whole clip.
    """
    if isinstance(shape, CountedShape):
        return shape.flops
    embed = tokens * shape.patch_dim * shape.embed_dim
    in_blocks = tokens + shape.cls_token
    blocks = _blocks(in_blocks, shape.embed_dim, shape.hidden_dim, shape.depth)
    return FLOPS_PER_MULTIPLY_ADD * (embed + blocks)


def predictor_forward(shape: PredictorShape, context_dim: int, out_dim: int, tokens: Tokens) -> int:
    """FLOPs of predicting the targets of one clip in one mask set."""
    embed = tokens.context * context_dim * shape.dim
    blocks = _blocks(tokens.context + tokens.target, shape.dim, shape.hidden_dim, shape.depth)
    project = tokens.target * shape.dim * out_dim
    return FLOPS_PER_MULTIPLY_ADD * (embed + blocks + project)


def block_parameters(dim: int, hidden: int, depth: int) -> int:
    """Parameters of `depth` blocks: two norms, four projections and the MLP, all with biases."""
    norms, attention = 4 * dim, 4 * dim * (dim + 1)
    return depth * (norms + attention + hidden * (dim + 1) + dim * (hidden + 1))


def encoder_parameters(shape: EncoderShape | CountedShape) -> int:
    """Parameters of an encoder."""
    if isinstance(shape, CountedShape):
        return shape.parameters
    embed, norm = shape.embed_dim * (shape.patch_dim + 1), 2 * shape.embed_dim
    cls_token = shape.embed_dim * shape.cls_token
    blocks = block_parameters(shape.embed_dim, shape.hidden_dim, shape.depth)
    return embed + cls_token + blocks + norm


def pixel_teacher_step(
    encoder: EncoderShape, decoder: PredictorShape, groups: Sequence[GroupTokens]
) -> dict[str, int]:
    """FLOPs of one step of stage 1 by part."""
    return {
        "encoder": _encoders(encoder, groups),
        "decoder": _predictors(decoder, encoder.embed_dim, encoder.patch_dim, groups),
    }


def salt_step(
    student: EncoderShape,
    predictor: PredictorShape,
    teacher: EncoderShape | CountedShape,
    clip_tokens: int,
    groups: Sequence[GroupTokens],
) -> dict[str, int]:
    """FLOPs of one step of stage 2 by part; the teacher sees the whole clip once."""
    clips = sum(group.clips for group in groups)
    return {
        "teacher_forward": clips * encoder_forward(teacher, clip_tokens),
        "encoder": _encoders(student, groups),
        "predictor": _predictors(predictor, student.embed_dim, teacher.embed_dim, groups),
    }


def vjepa_step(
    student: EncoderShape,
    predictor: PredictorShape,
    clip_tokens: int,
    groups: Sequence[GroupTokens],
) -> dict[str, int]:
    """FLOPs of one step of V-JEPA by part.

    SALT's step with a teacher of the student's shape, which then moves towards the student: 3 FLOPs
    for each of the encoder's parameters, whatever the number of clips or devices.
    """
    parts = salt_step(student, predictor, student, clip_tokens, groups)
    return parts | {"ema": FLOPS_PER_EMA_PARAMETER * encoder_parameters(student)}


def multi_view_step(
    encoder: EncoderShape, projector: ProjectorShape, groups: Sequence[GroupTokens]
) -> dict[str, int]:
    """FLOPs of one step of LeVJEPA by part: every mask set is a view, with one embedding.

    `projector` includes the product of embeddings and SIGReg's directions, `ema` is the moving
    average that is evaluated.
    """
    embeddings = sum(group.clips * len(group.masks) for group in groups)
    project = projector.hidden_dim * (encoder.embed_dim + projector.out_dim)
    regularize = projector.out_dim * projector.directions
    per_embedding = FLOPS_PER_MULTIPLY_ADD * (project + regularize)
    return {
        "encoder": _encoders(encoder, groups),
        "projector": FORWARD_AND_BACKWARD * embeddings * per_embedding,
        "ema": FLOPS_PER_EMA_PARAMETER * encoder_parameters(encoder),
    }


def head_forward(encoder: EncoderShape, head: HeadShape, tokens: int) -> int:
    """FLOPs of classifying one clip of `tokens` tokens, encoded already.

    Pooling by attention makes one query for all clips at once, which is left out.
    """
    dim, count = encoder.embed_dim, head.features(encoder.embed_dim) * head.classes
    if head.pool == "attentive":
        read = tokens + encoder.cls_token
        hidden = ATTENTIVE_MLP_RATIO * dim
        count += _blocks(read, dim, hidden, ATTENTIVE_DEPTH - 1)
        count += 2 * read * dim**2 + 2 * read * dim + 2 * dim * hidden
    return FLOPS_PER_MULTIPLY_ADD * count


def classification_step(
    encoder: EncoderShape, head: HeadShape, groups: Sequence[GroupTokens]
) -> dict[str, int]:
    """FLOPs of one step of fine-tuning by part."""
    heads = sum(
        group.clips * head_forward(encoder, head, mask.context)
        for group in groups
        for mask in group.masks
    )
    return {"encoder": _encoders(encoder, groups), "head": FORWARD_AND_BACKWARD * heads}


def recomputed(
    encoder: EncoderShape, predictor: PredictorShape | None, groups: Sequence[GroupTokens]
) -> int:
    """FLOPs of the blocks that activation checkpointing runs a second time in one step.

    The blocks of encoder and predictor (or decoder; None where there is none) run again, those of a
    teacher do not. The MLP's second product does not either: by then torch has all that the
    backward pass needs. These FLOPs are spent, but are not FLOPs of the model: the functions above
    leave them out.
    """
    total = 0
    for group in groups:
        for mask in group.masks:
            tokens = mask.context + encoder.cls_token
            again = _recomputed(tokens, encoder.embed_dim, encoder.hidden_dim, encoder.depth)
            if predictor is not None:
                dim, hidden = predictor.dim, predictor.hidden_dim
                again += _recomputed(sum(mask), dim, hidden, predictor.depth)
            total += group.clips * again
    return FLOPS_PER_MULTIPLY_ADD * total


def _encoders(shape: EncoderShape, groups: Sequence[GroupTokens]) -> int:
    return FORWARD_AND_BACKWARD * sum(
        group.clips * encoder_forward(shape, mask.context)
        for group in groups
        for mask in group.masks
    )


def _predictors(
    shape: PredictorShape, context_dim: int, out_dim: int, groups: Sequence[GroupTokens]
) -> int:
    return FORWARD_AND_BACKWARD * sum(
        group.clips * predictor_forward(shape, context_dim, out_dim, mask)
        for group in groups
        for mask in group.masks
    )


def _recomputed(tokens: int, dim: int, hidden: int, depth: int) -> int:
    return _blocks(tokens, dim, hidden, depth) - depth * tokens * hidden * dim
