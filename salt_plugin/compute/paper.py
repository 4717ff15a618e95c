"""The `paper` convention: 6 N D for what is trained, 2 N D for a teacher's forward pass.

As the paper counts (arXiv 2509.24317): N parameters, D tokens, attention's quadratic term and the
EMA update left out, and the encoder taken to keep a tenth of the tokens in each mask set.
"""

from __future__ import annotations

from collections.abc import Sequence

from salt_plugin.compute.cost import encoder_parameters
from salt_plugin.shapes import CountedShape, EncoderShape, GroupTokens

# Of predictor and pixel decoder, as printed; the encoder's N is exact.
HEAD_PARAMETERS = 22_000_000
KEPT_PER_SET = 0.1
TRAINED, FORWARD = 6, 2


def paper_pixels(
    encoder: EncoderShape, clip_tokens: int, groups: Sequence[GroupTokens]
) -> dict[str, int]:
    """Returns the FLOPs of a step of stage 1 by part; the decoder sees a whole clip in each set."""
    mask_sets, tokens = len(groups[0].masks), clip_tokens * _clips(groups)
    return {
        "encoder": round(TRAINED * encoder_parameters(encoder) * KEPT_PER_SET * mask_sets * tokens),
        "decoder": TRAINED * HEAD_PARAMETERS * mask_sets * tokens,
    }


def paper_latents(
    student: EncoderShape,
    teacher: EncoderShape | CountedShape,
    clip_tokens: int,
    groups: Sequence[GroupTokens],
) -> dict[str, int]:
    """Returns the FLOPs of a step of stage 2 by part; the teacher sees a whole clip once."""
    trained = paper_pixels(student, clip_tokens, groups)
    return {
        "teacher_forward": FORWARD * encoder_parameters(teacher) * clip_tokens * _clips(groups),
        "encoder": trained["encoder"],
        "predictor": trained["decoder"],
    }


def paper_views(encoder: EncoderShape, groups: Sequence[GroupTokens]) -> dict[str, int]:
    """Returns the FLOPs of a step of encoder alone by part: 6 N of each token, `[cls]` included."""
    tokens = sum(
        group.clips * (mask.context + encoder.cls_token) for group in groups for mask in group.masks
    )
    return {"encoder": TRAINED * encoder_parameters(encoder) * tokens}


def _clips(groups: Sequence[GroupTokens]) -> int:
    return sum(group.clips for group in groups)
