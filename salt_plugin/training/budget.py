"""The files that a run starts from, what was spent on them, and what is left of its budget.

A budget ends a stage in `StagePlan.next_price`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from salt_plugin.compute import CONTINUED, INITIALISATION, TEACHER_TRAINING
from salt_plugin.config import RunConfig
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.run_directory import RunDirectory
from salt_plugin.training.run_shapes import RunShapes

if TYPE_CHECKING:
    from salt_plugin.training.foreign_teacher import TeacherFile

# Keys that name files of weights.
START, TEACHER, CONTINUE = "checkpoint", "method.teacher.path", "method.continue_from"


def named_teacher_path(config: RunConfig) -> str | None:
    """Returns `method.teacher.path`; None of a method that has no such key."""
    settings = getattr(config.method, "teacher", None)
    return None if settings is None else settings.path


def load_teacher(path: str, shapes: RunShapes) -> TeacherFile:
    """Returns the encoder that `method.teacher.path` names.

    Raises:
        SaltError: It cannot be loaded, or cuts clips into other tokens than the student.
    """
    from salt_plugin.batch import Normalization
    from salt_plugin.checkpoints import load_encoder, read_input
    from salt_plugin.evaluation.encoders import TIMM
    from salt_plugin.training.foreign_teacher import FrameTeacher, TeacherFile

    with named_by(TEACHER):
        if path.startswith(TIMM):
            frames = FrameTeacher(path, shapes)
            return TeacherFile(frames, frames.shape, frames.normalization)
        file = teacher_file(path)
        encoder, seen = load_encoder(file), read_input(file)
    student = shapes.encoder
    for name in ("patch_size", "tubelet_size", "in_chans"):
        found, expected = getattr(encoder.shape, name), getattr(student, name)
        if found != expected:
            raise CheckpointError(
                f"{TEACHER}={path}: the teacher has {name}={found}, the student {expected}, so "
                f"their tokens do not match; set method.model.{name}={found} or choose another "
                "teacher"
            )
    stated = {key: seen[key] for key in ("mean", "std") if key in seen}
    return TeacherFile(encoder, encoder.shape, Normalization(**stated))


def teacher_file(path: str) -> Path:
    """Returns the encoder file of a teacher: of a run directory that of the stage it is for.

    Raises:
        CheckpointError: There is none, or the run directory has the teacher of that stage alone.
    """
    from salt_plugin.checkpoints import find_encoder

    run = RunDirectory(Path(path).expanduser())
    if run.config.is_file() and run.teacher.finished and not run.result.finished:
        raise CheckpointError(
            f"{path} is a run that is not finished: expected the encoder of its "
            f"{run.result.root.name}; wait for it, or name {run.teacher.root} for the teacher"
        )
    return find_encoder(path)


@contextmanager
def named_by(key: str) -> Iterator[None]:
    """Names a config key in the error of the file that it names."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{key}: {error}") from None


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
    from salt_plugin.checkpoints import STUDENT_FIRST, find_encoder, read_bill
    from salt_plugin.evaluation.encoders import TIMM

    start = None
    if config.checkpoint:
        with named_by(START):
            start = find_encoder(config.checkpoint, STUDENT_FIRST)
            inherited[INITIALISATION] = read_bill(start)
    if teacher is not None:
        inherited[TEACHER_TRAINING] = None  # of a model of timm nobody has counted it
        if not teacher.startswith(TIMM):
            with named_by(TEACHER):
                file = teacher_file(teacher)
                inherited[TEACHER_TRAINING] = read_bill(file)
            if start is not None and file.samefile(start):  # it was trained once
                del inherited[INITIALISATION]
    return inherited


def budget_left(config: RunConfig, inherited: Mapping[str, int | None]) -> int | None:
    """Returns the budget of the last stage: the run's less what was spent before.

    Raises:
        ConfigError: Nothing is left of it, or what was spent before is unknown.
    """
    budget = config.compute.budget
    if budget is None:
        return None
    left = int(budget)
    for part, spent in inherited.items():
        key = START if part == INITIALISATION else TEACHER
        if CONTINUED in inherited:
            key = CONTINUE
        if spent is None:
            raise ConfigError(
                f"compute.budget={budget:g} covers all that an encoder has cost, and the file of "
                f"{key} has no ledger. Leave compute.budget out, or name an encoder that this "
                "package has trained"
            )
        left -= spent
        if left <= 0:
            raise ConfigError(
                f"compute.budget={budget:g}: {key} alone has cost {spent:.4g}; give more than that"
            )
    return left
