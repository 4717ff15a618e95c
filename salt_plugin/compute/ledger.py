"""What a stage has spent so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CONVENTION = "exact"


@dataclass
class Ledger:
    """Sums over the steps of a stage, in the `exact` convention of `compute.cost`.

    Attributes:
        flops: FLOPs of the models by part.
        recomputed_flops: FLOPs of activations that were computed a second time to save memory:
            spent, but not counted as FLOPs of the models.
        steps: Optimiser steps.
        clips: Clips seen.
        tokens: Tokens encoded or predicted by what is trained.
        seconds: Wall time of training.
        evaluation: What evaluations on the way and at the end took, in `flops` and `seconds`; no
            part of training, of its budget, or of a bill.
    """

    flops: dict[str, int] = field(default_factory=dict)
    recomputed_flops: int = 0
    steps: int = 0
    clips: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluation: dict[str, float] = field(default_factory=lambda: {"flops": 0, "seconds": 0.0})

    @property
    def total_flops(self) -> int:
        """FLOPs of the models in all parts; budgets and bills count these."""
        return sum(self.flops.values())

    @property
    def spent_flops(self) -> int:
        """FLOPs of the models and of what was recomputed."""
        return self.total_flops + self.recomputed_flops

    def add_step(
        self,
        flops: Mapping[str, int],
        clips: int,
        tokens: int,
        seconds: float,
        recomputed: int = 0,
    ) -> None:
        """Books one step."""
        for part, count in flops.items():
            self.flops[part] = self.flops.get(part, 0) + count
        self.recomputed_flops += recomputed
        self.steps += 1
        self.clips += clips
        self.tokens += tokens
        self.seconds += seconds

    def add_evaluation(self, flops: int, seconds: float) -> None:
        """Books an evaluation, apart from training."""
        self.evaluation["flops"] += flops
        self.evaluation["seconds"] += seconds

    def as_dict(self) -> dict[str, Any]:
        """Returns what `compute.json` holds."""
        totals = {"total_flops": self.total_flops, "spent_flops": self.spent_flops}
        return {"convention": CONVENTION, **totals, **asdict(self)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from what `as_dict` returned."""
        for name in ("flops", "recomputed_flops", "steps", "clips", "tokens", "seconds"):
            setattr(self, name, state[name])
        self.evaluation = dict(state.get("evaluation", self.evaluation))  # not of earlier versions
