"""Which checkpoint a stage goes on from."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

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
        except Exception as error:
            reasons.append(f"{path} cannot be resumed from ({type(error).__name__}: {error})")
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
    # torch does not compare the checksums that it writes.
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"the checksum of {broken} differs")
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
