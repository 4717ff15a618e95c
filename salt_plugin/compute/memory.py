"""Memory of a device in a training step, as the allocator counts it: a closed form in the tokens.

Of eager execution; a compiled step keeps less. Left out is what CUDA itself takes, what lies idle
between the allocator's blocks, and the head of a classifier. The tests hold it to torch's profiler.
No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from salt_plugin.compute.cost import block_parameters, encoder_parameters
from salt_plugin.compute.step_costs import Shapes, StepForm
from salt_plugin.shapes import CountedShape, EncoderShape, PredictorShape, Tokens

FLOAT32 = 4
# AdamW's two averages.
ADAMW = 2 * FLOAT32
# Of lightly's SIGReg, on each direction.
SIGREG_KNOTS = 17


class Execution(NamedTuple):
    """How a device holds its part of a step.

    Attributes:
        clips: Of a micro-batch.
        micro_batches: Of a step; gradients stay from the first to the last.
        devices: That train together; DDP keeps a second copy of the gradients.
        value: Bytes of what matrix products take and give: 2 under autocast, else 4.
        norm: Bytes of what a LayerNorm keeps: 4, under CUDA's autocast as well; on CPUs as `value`.
        checkpointing: Whether blocks are computed a second time in the backward pass.
    """

    clips: int
    micro_batches: int = 1
    devices: int = 1
    value: int = 2
    norm: int = FLOAT32
    checkpointing: bool = False


class _Blocks(NamedTuple):
    """Bytes of a stack of blocks: kept for the backward pass, and taken by a block within it."""

    kept: int
    working: int


def step_memory(
    form: StepForm, shapes: Shapes, masks: Sequence[Tokens], how: Execution
) -> dict[str, int]:
    """Returns the bytes of a device at the peak of a step, by part; their sum is the peak.

    Args:
        form: Of the step.
        shapes: Of its models.
        masks: Token counts of a clip in each mask set.
        how: How a device holds its part of the step.

    Returns:
        `weights` and `optimizer` (float32), `teacher` (frozen, or a moving average), `gradients` as
        at the peak, and `activations`: what the backward pass needs, copies of weights in the type
        of matrix products, inputs, targets and losses included.
    """
    encoder, latents = shapes.encoder, form.frozen or form.average
    predictor = shapes.predictor if form.predicts else None
    out_dim = shapes.teacher.embed_dim if form.frozen else encoder.embed_dim
    out_dim = out_dim if latents else encoder.patch_dim
    whole = how.clips * shapes.clip_tokens
    context, target = (how.clips * sum(mask[i] for mask in masks) for i in (0, 1))
    seen = context + how.clips * len(masks) * encoder.cls_token

    trained = encoder_parameters(encoder)
    head = _projector_parameters(shapes) if form.average else 0
    if predictor is not None:
        head = predictor_parameters(predictor, encoder.embed_dim, out_dim)
    gradients = FLOAT32 * (trained + head)
    earlier = gradients if how.micro_batches > 1 else 0

    blocks = _blocks(encoder, encoder.embed_dim, seen, len(masks), how)
    # What tubelets are embedded from, the last norm, and what goes from it into the head.
    around = context * encoder.patch_dim * how.value + seen * encoder.embed_dim * (
        how.norm + how.value
    )
    # Clips as bytes, normalised, and as tubelets; local views are as many as their tokens say.
    views = 1 if form.predicts else context / (how.clips * masks[0].context)
    inputs = round(whole * encoder.patch_dim * (views + 2 * FLOAT32))

    encoded = blocks.kept + around
    if predictor is None and form.average:  # SIGReg: what it keeps, its cosines and its sines
        embeddings = how.clips * len(masks)
        encoded += 3 * FLOAT32 * embeddings * shapes.projector.directions * SIGREG_KNOTS
    moments = [
        (earlier, inputs + _passing(form, shapes, whole, how)),
        (earlier, encoded + inputs),
        (max(earlier, FLOAT32 * head), encoded + blocks.working),
        (gradients, around + blocks.working),
    ]
    if predictor is not None:
        inner = _blocks(predictor, predictor.dim, context + target, len(masks), how)
        last = how.clips * masks[-1].target * out_dim * FLOAT32
        cast = how.value < FLOAT32
        predicted = inner.kept + target * predictor.dim * (how.norm + how.value)
        # L1 keeps a difference, a pixel loss predictions and targets.
        predicted += target * out_dim * FLOAT32 * (1 if latents else 1 + cast)
        # Until the forward pass ends: predictions, whole targets, what the last loss takes.
        ending = target * out_dim * how.value + last * (3 + cast if latents else 1)
        ending += whole * out_dim * FLOAT32 if latents else 0
        moments += [
            (earlier, encoded + predicted + inputs + ending),
            (earlier, encoded + inner.kept + inner.working),
        ]
    held, activations = max(moments, key=sum)
    return {
        "weights": gradients,
        "optimizer": ADAMW * (trained + head),
        "teacher": _teacher(form, shapes, how),
        "gradients": held + (gradients if how.devices > 1 else 0),
        "activations": activations,
    }


def predictor_parameters(shape: PredictorShape, context_dim: int, out_dim: int) -> int:
    """Parameters of a predictor or pixel decoder."""
    ends = (context_dim + 1) * shape.dim + (shape.dim + 1) * out_dim
    tokens_and_norm = (shape.num_mask_tokens + 2) * shape.dim
    return ends + tokens_and_norm + block_parameters(shape.dim, shape.hidden_dim, shape.depth)


def _projector_parameters(shapes: Shapes) -> int:
    hidden, out_dim = shapes.projector.hidden_dim, shapes.projector.out_dim
    return hidden * (shapes.encoder.embed_dim + 2 + out_dim) + out_dim


def _blocks(
    shape: EncoderShape | PredictorShape, dim: int, tokens: int, sets: int, how: Execution
) -> _Blocks:
    """Returns what blocks take in one pass over the tokens of all clips and mask sets."""
    hidden, value = shape.hidden_dim, how.value
    # Inputs of both norms; inputs of all four products, queries, keys and values, the first two
    # rotated as well, what attention gives, the MLP before and after GELU; statistics in float32.
    values = (8 + (sets > 1)) * dim + 2 * hidden
    one = tokens * (2 * how.norm * dim + value * values + FLOAT32 * (shape.num_heads + 4))
    # Matrices in the type of products, which autocast keeps to the end of the forward pass.
    cast = value * (4 * dim**2 + 2 * dim * hidden) if value < FLOAT32 else 0
    one += cast
    working = tokens * value * (dim + hidden)  # gradients of the stream and within the MLP
    if not how.checkpointing:
        return _Blocks(shape.depth * one, working)
    return _Blocks(shape.depth * (tokens * dim * value + cast), one + working)


def _passing(form: StepForm, shapes: Shapes, tokens: int, how: Execution) -> int:
    """Returns what a teacher takes on its way through whole clips: one block at a time."""
    if not form.predicts or not (form.frozen or form.average):
        return 0
    teacher = shapes.teacher if form.frozen else shapes.encoder
    if isinstance(teacher, CountedShape):
        return tokens * teacher.embed_dim * 10 * how.value
    stream = teacher.embed_dim * (how.norm + 2 * how.value)
    inner = max(9 * teacher.embed_dim, 2 * teacher.hidden_dim)
    return tokens * (stream + how.value * inner)


def _teacher(form: StepForm, shapes: Shapes, how: Execution) -> int:
    if form.average:
        return FLOAT32 * encoder_parameters(shapes.encoder)
    if not form.frozen:
        return 0
    # The matrices of one of ours lie in the type of products.
    foreign = isinstance(shapes.teacher, CountedShape)
    return encoder_parameters(shapes.teacher) * (FLOAT32 if foreign else how.value)
