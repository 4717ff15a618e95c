"""The `paper` convention: 6 N D for what is trained, 2 N D for a teacher's forward pass.

As the paper counts (arXiv 2509.24317): N parameters, D tokens, attention's quadratic term and the
EMA update left out, and the encoder taken to keep a tenth of the tokens in each mask set.
"""

from __future__ import annotations

from salt_plugin.compute.cost import encoder_parameters
from salt_plugin.compute.step_costs import StepCosts
from salt_plugin.shapes import EncoderShape

# Of predictor and pixel decoder, as printed; the encoder's N is exact.
HEAD_PARAMETERS = 22_000_000
KEPT_PER_SET = 0.1
TRAINED, FORWARD = 6, 2


def paper_costs(
    method: str,
    encoder: EncoderShape,
    teacher: EncoderShape,
    clips: int,
    clip_tokens: int,
    mask_sets: int = 2,
) -> StepCosts:
    """Returns the step's cost in the `paper` convention.

    Args:
        method: One of `step_costs.METHODS`.
        encoder: What is trained last.
        teacher: What SALT trains first; not used by other methods.
        clips: Clips of a step on all devices.
        clip_tokens: Tokens T of a whole clip; the predictor sees T in each mask set.
        mask_sets: Mask sets of a clip.
    """
    tokens = clips * clip_tokens
    head = TRAINED * HEAD_PARAMETERS * mask_sets * tokens

    def trained(shape: EncoderShape) -> int:
        return round(TRAINED * encoder_parameters(shape) * KEPT_PER_SET * mask_sets * tokens)

    if method == "pixel_teacher":
        return StepCosts({"teacher_training": trained(encoder) + head}, {})
    if method == "videomae":
        return StepCosts({"student": trained(encoder), "decoder": head}, {})
    target = teacher if method == "salt" else encoder
    main = {
        "teacher_forward": FORWARD * encoder_parameters(target) * tokens,
        "student": trained(encoder),
        "predictor": head,
    }
    before = {"teacher_training": trained(teacher) + head} if method == "salt" else {}
    return StepCosts(main, before)
