"""What a step of a method costs by part: its closed forms in both conventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from salt_plugin.compute.cost import pixel_teacher_step, salt_step, vjepa_step
from salt_plugin.compute.paper import paper_latents, paper_pixels
from salt_plugin.shapes import EncoderShape, GroupTokens, PredictorShape

CONVENTIONS = ("exact", "paper")


class Shapes(NamedTuple):
    """What the cost of a step depends on beside clips and masks.

    Attributes:
        encoder: What is trained.
        teacher: Frozen, where the method has one that is; else not used.
        predictor: Shape of predictor or pixel decoder.
        clip_tokens: Tokens of a whole clip.
    """

    encoder: EncoderShape
    teacher: EncoderShape
    predictor: PredictorShape
    clip_tokens: int


class StepForm(NamedTuple):
    """FLOPs of a step by part, in closed form.

    Attributes:
        exact: From the shapes, and the token counts of the step's clips.
        paper: From the shapes, the number of clips, and the number of mask sets.
    """

    exact: Callable[[Shapes, Sequence[GroupTokens]], dict[str, int]]
    paper: Callable[[Shapes, int, int], dict[str, int]]


PIXELS = StepForm(
    lambda s, groups: pixel_teacher_step(s.encoder, s.predictor, groups),
    lambda s, clips, sets: paper_pixels(s.encoder, clips, s.clip_tokens, sets),
)
FROZEN_TEACHER = StepForm(
    lambda s, groups: salt_step(s.encoder, s.predictor, s.teacher, s.clip_tokens, groups),
    lambda s, clips, sets: paper_latents(s.encoder, s.teacher, clips, s.clip_tokens, sets),
)
EMA_TEACHER = StepForm(
    lambda s, groups: vjepa_step(s.encoder, s.predictor, s.clip_tokens, groups),
    lambda s, clips, sets: paper_latents(s.encoder, s.encoder, clips, s.clip_tokens, sets),
)


@dataclass(frozen=True, kw_only=True)
class CostedMethod:
    """A method as far as its cost goes.

    Attributes:
        name: Its name.
        step: What a step costs.
        result: The stage whose encoder is the result of a run, `teacher` or `student`.
        teacher: The method that trains its teacher first, unless one is named; None where it needs
            none.
    """

    name: str
    step: StepForm
    result: str = "student"
    teacher: CostedMethod | None = None
