"""Which checkpoint a stage goes on from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

from salt_plugin.checkpoints import read_torch_file
from salt_plugin.errors import CheckpointError


class ResumePoint(NamedTuple):
    """A checkpoint and the optimiser steps in it; None and 0 where there is none."""

    path: Path | None
    step: int


def previous_checkpoint(last: Path) -> Path:
    """Returns where the checkpoint before the last one is kept."""
    return last.with_name(f"previous{last.suffix}")


def resume_point(last: Path) -> ResumePoint:
    """Returns the last checkpoint that is whole; a damaged one gives a warning.

    Args:
        last: Where the last one is kept.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    reasons = []
    for path in (last, previous_checkpoint(last)):
        if not path.is_file():
            continue
        try:
            point = ResumePoint(path, _steps(path))
        except CheckpointError as error:
            reasons.append(f"{path} cannot be resumed from: {error}")
            continue
        for reason in reasons:
            warnings.warn(f"{reason}; {path.name}, step {point.step}, is used", stacklevel=2)
        return point
    if reasons:
        raise CheckpointError(
            f"{'; '.join(reasons)}; delete {last.parent} to start this stage again, or choose "
            "another hydra.run.dir"
        )
    return ResumePoint(None, 0)


def _steps(path: Path) -> int:
    step = read_torch_file(path, checksums=True).get("global_step")
    if not isinstance(step, int) or step < 0:
        raise CheckpointError(f"its global_step is {str(step)[:80]}: expected a number of steps")
    return step
