"""What a step of each method costs by part, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from salt_plugin.compute.cost import Tokens, pixel_teacher_step, salt_step, vjepa_step
from salt_plugin.shapes import EncoderShape, PredictorShape

METHODS = ("salt", "vjepa", "vjepa2", "videomae", "pixel_teacher")
CONVENTIONS = ("exact", "paper")


class StepCosts(NamedTuple):
    """FLOPs of one step by part.

    Parts are `teacher_training` (all of a pixel teacher's step, its decoder too),
    `teacher_forward`, `student`, `predictor` or `decoder`, and `ema`.

    Attributes:
        main: Of the method's only or last stage.
        teacher: Of the stage that trains SALT's teacher first; empty for other methods.
    """

    main: dict[str, int]
    teacher: dict[str, int]

    def spent(self, steps: int, teacher_steps: int = 0) -> dict[str, int]:
        """Returns the FLOPs of whole stages by part."""
        stages = ((self.teacher, teacher_steps), (self.main, steps))
        return {part: count * done for stage, done in stages for part, count in stage.items()}


def expected_costs(
    method: str,
    encoder: EncoderShape,
    teacher: EncoderShape,
    predictor: PredictorShape,
    clips: int,
    clip_tokens: int,
    lengths: Sequence[Sequence[Tokens]],
) -> StepCosts:
    """Returns the step's cost in the `exact` convention, the mean over drawn mask lengths.

    It is the mean of costs, not the cost of mean lengths: attention is quadratic.

    Args:
        method: One of `METHODS`.
        encoder: What is trained last.
        teacher: What SALT trains first; not used by other methods.
        predictor: Shape of predictor and pixel decoder.
        clips: Clips of a step on all devices.
        clip_tokens: Tokens of a whole clip.
        lengths: Token counts of the mask sets, a list for each batch drawn.
    """

    def mean(step: Callable[[Sequence[Tokens]], dict[str, int]]) -> dict[str, int]:
        drawn = [step(masks) for masks in lengths]
        return {part: round(sum(cost[part] for cost in drawn) / len(drawn)) for part in drawn[0]}

    def pixels(shape: EncoderShape) -> dict[str, int]:
        return mean(lambda masks: pixel_teacher_step(shape, predictor, clips, masks))

    if method == "salt":
        parts = mean(
            lambda masks: salt_step(encoder, predictor, teacher, clips, clip_tokens, masks)
        )
        return StepCosts(_named(parts), {"teacher_training": sum(pixels(teacher).values())})
    if method == "pixel_teacher":
        return StepCosts({"teacher_training": sum(pixels(encoder).values())}, {})
    if method == "videomae":
        return StepCosts(_named(pixels(encoder)), {})
    parts = mean(lambda masks: vjepa_step(encoder, predictor, clips, clip_tokens, masks))
    return StepCosts(_named(parts), {})


def _named(parts: dict[str, int]) -> dict[str, int]:
    return {"student" if part == "encoder" else part: count for part, count in parts.items()}
