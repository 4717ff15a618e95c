"""What a step of a method costs by part: its closed forms in both conventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from salt_plugin.compute.cost import (
    classification_step,
    multi_view_step,
    pixel_teacher_step,
    salt_step,
    vjepa_step,
)
from salt_plugin.compute.paper import paper_latents, paper_pixels, paper_views
from salt_plugin.shapes import (
    CountedShape,
    EncoderShape,
    GroupTokens,
    HeadShape,
    PredictorShape,
    ProjectorShape,
)

CONVENTIONS = ("exact", "paper")


class Shapes(NamedTuple):
    """What the cost of a step depends on beside clips and masks.

    Attributes:
        encoder: What is trained.
        teacher: Frozen, where the method has one that is; else not used.
        predictor: Shape of predictor or pixel decoder; where there is none, not used.
        clip_tokens: Tokens of a whole clip.
        projector: Where the method has one; else not used.
        head: Likewise.
    """

    encoder: EncoderShape
    teacher: EncoderShape | CountedShape
    predictor: PredictorShape
    clip_tokens: int
    projector: ProjectorShape = ProjectorShape()
    head: HeadShape = HeadShape()


class StepForm(NamedTuple):
    """FLOPs of a step by part, in closed form.

    Attributes:
        exact: From the shapes, and the token counts of the step's clips.
        paper: Likewise.
        predicts: Whether there is a predictor or pixel decoder.
        frozen: Whether it holds a frozen teacher.
        average: Whether it holds a moving average of the encoder.
    """

    exact: Callable[[Shapes, Sequence[GroupTokens]], dict[str, int]]
    paper: Callable[[Shapes, Sequence[GroupTokens]], dict[str, int]]
    predicts: bool = True
    frozen: bool = False
    average: bool = False


PIXELS = StepForm(
    lambda s, groups: pixel_teacher_step(s.encoder, s.predictor, groups),
    lambda s, groups: paper_pixels(s.encoder, s.clip_tokens, groups),
)
FROZEN_TEACHER = StepForm(
    lambda s, groups: salt_step(s.encoder, s.predictor, s.teacher, s.clip_tokens, groups),
    lambda s, groups: paper_latents(s.encoder, s.teacher, s.clip_tokens, groups),
    frozen=True,
)
EMA_TEACHER = StepForm(
    lambda s, groups: vjepa_step(s.encoder, s.predictor, s.clip_tokens, groups),
    lambda s, groups: paper_latents(s.encoder, s.encoder, s.clip_tokens, groups),
    average=True,
)
MULTI_VIEW = StepForm(
    lambda s, groups: multi_view_step(s.encoder, s.projector, groups),
    lambda s, groups: paper_views(s.encoder, groups),
    predicts=False,
    average=True,
)
CLASSES = StepForm(
    lambda s, groups: classification_step(s.encoder, s.head, groups),
    lambda s, groups: paper_views(s.encoder, groups),
    predicts=False,
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
