"""The budget of a run, and what was spent before it on the files that it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from salt_plugin.compute import INITIALISATION, TEACHER_TRAINING
from salt_plugin.config import RunConfig
from salt_plugin.errors import CheckpointError, ConfigError


def named_teacher_path(config: RunConfig) -> str | None:
    """Returns `method.teacher.path`; None of a method that has no such key."""
    settings = getattr(config.method, "teacher", None)
    return None if settings is None else settings.path


def inherited_flops(config: RunConfig, teacher: str | None = None) -> dict[str, int | None]:
    """Returns what was spent on the files that a stage starts from, as `compute.stage_bill` does.

    Args:
        config: Of the run; `checkpoint` names the encoder that training starts from.
        teacher: The teacher's run directory or file.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    inherited: dict[str, int | None] = {}
    if not config.checkpoint and teacher is None:
        return inherited
    from salt_plugin.checkpoints import STUDENT_FIRST, TEACHER_FIRST, find_encoder, read_bill

    def spent(key: str, path: str, order: Sequence[str]) -> int | None:
        try:
            return read_bill(find_encoder(path, order))
        except CheckpointError as error:
            raise CheckpointError(f"{key}: {error}") from None

    if config.checkpoint:
        inherited[INITIALISATION] = spent("checkpoint", config.checkpoint, STUDENT_FIRST)
    if teacher is not None:
        inherited[TEACHER_TRAINING] = spent("method.teacher.path", teacher, TEACHER_FIRST)
    return inherited


def budget_left(config: RunConfig, inherited: Mapping[str, int | None]) -> int | None:
    """Returns the budget of the last stage: that of the run without what was spent before.

    Raises:
        ConfigError: Nothing is left of it, or nobody has counted what was spent.
    """
    budget = config.compute.budget
    if budget is None:
        return None
    left = int(budget)
    for part, spent in inherited.items():
        key = "checkpoint" if part == INITIALISATION else "method.teacher.path"
        if spent is None:
            raise ConfigError(
                f"compute.budget={budget:g} covers all that an encoder has cost, and nobody has "
                f"counted what {key} has: its file has no ledger. Leave compute.budget out, or "
                "name an encoder that this package has trained"
            )
        left -= spent
        if left <= 0:
            raise ConfigError(
                f"compute.budget={budget:g}: {key} alone has cost {spent:.4g}; give more than that"
            )
    return left
