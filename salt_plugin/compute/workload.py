"""What is to be trained, as far as its cost depends on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from salt_plugin.compute.cost import Tokens
from salt_plugin.compute.paper import paper_costs
from salt_plugin.compute.step_costs import CONVENTIONS, METHODS, StepCosts, expected_costs
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import EncoderShape, Grid, PredictorShape


@dataclass(frozen=True)
class Workload:
    """A method with its shapes, clips and masks.

    Attributes:
        method: One of `step_costs.METHODS`.
        encoder: What is trained last.
        teacher: What SALT trains first; not used by other methods.
        predictor: Shape of predictor and pixel decoder.
        grid: Token grid of a clip.
        batch_size: Clips of a step on all devices.
        lengths: Token counts of the mask sets, a list for each batch drawn
            (`mask_lengths.draw_lengths`).

    Raises:
        ConfigError: There is no such method, or the batch is empty.
    """

    method: str
    encoder: EncoderShape
    teacher: EncoderShape
    predictor: PredictorShape
    grid: Grid
    batch_size: int
    lengths: Sequence[Sequence[Tokens]]

    def __post_init__(self) -> None:
        """Checks method and batch."""
        if self.method not in METHODS:
            raise ConfigError(f"method={self.method}: expected one of {', '.join(METHODS)}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size}: expected at least 1")

    @property
    def teacher_name(self) -> str | None:
        """Name of the teacher that is trained first, None where there is none."""
        return self.teacher.name if self.method == "salt" else None

    def step_costs(self, convention: str) -> StepCosts:
        """Returns the FLOPs of a step by part.

        Args:
            convention: `exact` or `paper`.

        Raises:
            ConfigError: There is no such convention.
        """
        tokens = math.prod(self.grid)
        if convention == "paper":
            return paper_costs(
                self.method,
                self.encoder,
                self.teacher,
                self.batch_size,
                tokens,
                len(self.lengths[0]),
            )
        if convention == "exact":
            return expected_costs(
                self.method,
                self.encoder,
                self.teacher,
                self.predictor,
                self.batch_size,
                tokens,
                self.lengths,
            )
        raise ConfigError(f"convention={convention}: expected one of {', '.join(CONVENTIONS)}")
