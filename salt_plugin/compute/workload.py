"""What is to be trained, as far as its cost depends on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from salt_plugin.compute.bill import own_parts
from salt_plugin.compute.cost import Tokens
from salt_plugin.compute.step_costs import CONVENTIONS, CostedMethod, Shapes, StepCosts
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import EncoderShape, Grid, PredictorShape


@dataclass(frozen=True)
class Workload:
    """A method with its shapes, clips and masks.

    Attributes:
        method: The method (`config.registry.get`).
        encoder: What is trained last.
        teacher: What is trained first, by a method that has its teacher trained; else not used.
        predictor: Shape of predictor and pixel decoder.
        grid: Token grid of a clip.
        batch_size: Clips of a step on all devices.
        lengths: Token counts of the mask sets, a list for each batch drawn
            (`mask_lengths.draw_lengths`).

    Raises:
        ConfigError: The batch is empty.
    """

    method: CostedMethod
    encoder: EncoderShape
    teacher: EncoderShape
    predictor: PredictorShape
    grid: Grid
    batch_size: int
    lengths: Sequence[Sequence[Tokens]]

    def __post_init__(self) -> None:
        """Checks the batch."""
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size}: expected at least 1")

    @property
    def teacher_name(self) -> str | None:
        """Size of the teacher that is trained first, None where there is none."""
        return None if self.method.teacher is None else self.teacher.name

    def step_costs(self, convention: str) -> StepCosts:
        """Returns the FLOPs of a step by part; in the `exact` convention the mean over `lengths`.

        It is the mean of costs, not the cost of mean lengths: attention is quadratic.

        Args:
            convention: `exact` or `paper`.

        Raises:
            ConfigError: There is no such convention.
        """
        if convention not in CONVENTIONS:
            raise ConfigError(f"convention={convention}: expected one of {', '.join(CONVENTIONS)}")
        first = self.method.teacher
        return StepCosts(
            self._stage(self.method, self.encoder, convention),
            {} if first is None else self._stage(first, self.teacher, convention),
        )

    def _stage(
        self, method: CostedMethod, encoder: EncoderShape, convention: str
    ) -> dict[str, int]:
        shapes = Shapes(encoder, self.teacher, self.predictor, math.prod(self.grid))
        if convention == "paper":
            parts = method.step.paper(shapes, self.batch_size, len(self.lengths[0]))
        else:
            drawn = [method.step.exact(shapes, self.batch_size, masks) for masks in self.lengths]
            parts = {part: round(sum(one[part] for one in drawn) / len(drawn)) for part in drawn[0]}
        return own_parts(method.result, parts)
