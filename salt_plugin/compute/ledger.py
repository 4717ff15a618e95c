"""What a stage has spent so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Ledger:
    """Sums over the steps of a stage, in the `exact` convention of `compute.cost`.

    Attributes:
        flops: FLOPs by part.
        steps: Optimiser steps.
        clips: Clips seen.
        tokens: Tokens encoded or predicted by what is trained.
        seconds: Wall time of training.
    """

    flops: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    clips: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def total_flops(self) -> int:
        """FLOPs of all parts."""
        return sum(self.flops.values())

    def add_step(self, flops: Mapping[str, int], clips: int, tokens: int, seconds: float) -> None:
        """Books one step."""
        for part, count in flops.items():
            self.flops[part] = self.flops.get(part, 0) + count
        self.steps += 1
        self.clips += clips
        self.tokens += tokens
        self.seconds += seconds

    def as_dict(self) -> dict[str, Any]:
        """Returns what `compute.json` holds."""
        return {"convention": "exact", "total_flops": self.total_flops, **asdict(self)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from what `as_dict` returned."""
        for name in ("flops", "steps", "clips", "tokens", "seconds"):
            setattr(self, name, state[name])
