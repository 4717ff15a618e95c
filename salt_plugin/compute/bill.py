"""The bill of an encoder: FLOPs of its own training, its teacher's and its initial weights'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from salt_plugin.compute.ledger import CONVENTION, Ledger

TEACHER_TRAINING = "teacher_training"
INITIALISATION = "initialisation"
CONTINUED = "continued"


class Bill(NamedTuple):
    """FLOPs by part; None where they are unknown, which makes the total unknown too.

    Parts: `teacher_training` (all that the teacher has cost), `initialisation` (all that the
    encoder which training started from has cost), `continued` (what else was spent in the runs
    that this one continues), `teacher_forward`, `student`, `predictor` or `decoder`, `ema`.
    """

    parts: dict[str, int | None]

    @property
    def total(self) -> int | None:
        """FLOPs of all parts; None if one is unknown."""
        total = 0
        for count in self.parts.values():
            if count is None:
                return None
            total += count
        return total

    def as_dict(self) -> dict[str, Any]:
        """Returns the bill with its convention and total."""
        return {"convention": CONVENTION, "parts": self.parts, "total": self.total}

    def shared(self, students: int) -> Bill:
        """Returns the bill of one of several students that split the training of their teacher."""
        training = self.parts.get(TEACHER_TRAINING)
        if training is None:
            return self
        return Bill({**self.parts, TEACHER_TRAINING: round(training / students)})


def stage_bill(stage: str, ledger: Ledger, inherited: Mapping[str, int | None]) -> Bill:
    """Returns the bill of a stage as of now.

    Args:
        stage: `teacher` or `student`.
        ledger: Of the stage.
        inherited: What was spent before it: `teacher_training`, `initialisation`, `continued`.
    """
    return Bill({**inherited, **own_parts(stage, ledger.flops)})


def continued_parts(stage: str, parts: Mapping[str, int | None]) -> dict[str, int | None]:
    """Returns what a run that continues another inherits, as `stage_bill` takes it.

    The teacher of a student, and the encoder that it started from, are the same; all else is
    `continued`.

    Args:
        stage: `teacher` or `student`.
        parts: Of the bill at the checkpoint that is continued.
    """
    same = {INITIALISATION} if stage == "teacher" else {INITIALISATION, TEACHER_TRAINING}
    inherited = {part: count for part, count in parts.items() if part in same}
    others = {part: count for part, count in parts.items() if part not in same}
    return {**inherited, CONTINUED: Bill(others).total}


def own_parts(stage: str, flops: Mapping[str, int]) -> dict[str, int]:
    """Returns the FLOPs of a stage under the names of a bill: all of a teacher's in one."""
    if stage == "teacher":
        return {TEACHER_TRAINING: sum(flops.values())}
    return {"student" if part == "encoder" else part: count for part, count in flops.items()}
