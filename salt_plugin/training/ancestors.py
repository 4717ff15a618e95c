"""Where a run comes from: the encoders it starts from, and the checkpoint that it continues."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salt_plugin.checkpoints import STUDENT_FIRST, card_of, find_encoder, read_torch_file
from salt_plugin.compute.bill import continued_parts, own_parts
from salt_plugin.config import RunConfig, registry
from salt_plugin.config.registry import MethodSpec
from salt_plugin.errors import CheckpointError
from salt_plugin.evaluation.encoders import TIMM
from salt_plugin.run_directory import RunDirectory
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.training.budget import CONTINUE, START, TEACHER, named_by, teacher_file
from salt_plugin.training.checkpoint import previous_checkpoint, resume_point
from salt_plugin.training.run_shapes import RunShapes


@dataclass
class Origin:
    """What a run takes over from the run that it continues, by `method.continue_from`.

    Attributes:
        steps: Optimiser steps that were made before, in all runs that were continued.
        inherited: What was spent before, as `compute.stage_bill` takes it.
        lineage: As the card of an encoder holds it.
        state: What the checkpoint holds; None once the run has one of its own.
    """

    steps: int
    inherited: Mapping[str, int | None]
    lineage: dict[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] | None = None

    @property
    def teacher(self) -> str | None:
        """Where the frozen teacher lies; None where there is none."""
        path: str | None = self.lineage.get("teacher", {}).get("path")
        return path

    def require_teacher(self, path: str, fingerprint: str) -> None:
        """Checks that the teacher is the one that the student has learnt from.

        Raises:
            CheckpointError: It is another.
        """
        expected = fingerprint if self.state is None else self.state.get("teacher_fingerprint")
        if expected != fingerprint:
            raise CheckpointError(
                f"{TEACHER}={path} is not the teacher that the student of {CONTINUE} has learnt "
                f"from: expected the fingerprint {str(expected)[:12]}, found {fingerprint[:12]}; "
                f"leave {TEACHER} out, or start from the encoder alone by {START} in place of "
                f"{CONTINUE}"
            )


def shaping(spec: MethodSpec, shapes: RunShapes) -> dict[str, Any]:
    """Returns what the weights and the optimiser state of a stage fit to, by key.

    Clip length is none of it: positions are rotations, not weights.
    """
    encoder, projector = shapes.trained(spec.result), shapes.projector
    found: dict[str, Any] = {"method.name": spec.name, "method.encoder": encoder.name}
    for name in ("patch_size", "tubelet_size", "cls_token", "block_causal"):
        found[f"method.model.{name}"] = getattr(encoder, name)
    if spec.step.predicts:
        predictor = shapes.predictor_of(encoder)
        for name in ("dim", "depth", "num_heads"):
            found[f"method.model.predictor.{name}"] = getattr(predictor, name)
        found["method.masks"] = f"{predictor.num_mask_tokens} mask sets"
    for name in ("hidden_dim", "out_dim"):
        found[f"method.projector.{name}"] = getattr(projector, name)
    return found


def origin_of(config: RunConfig, shapes: RunShapes, own: Path | None = None) -> Origin | None:
    """Returns what a run takes over by `method.continue_from`; None where that is not set.

    Args:
        config: Of the run.
        shapes: Of the configuration.
        own: Where the run keeps its last checkpoint. Once there is one, it has all that is needed,
            and the other run is not looked at any more.

    Raises:
        CheckpointError: There is no whole checkpoint, or a key that has to agree differs.
    """
    given = config.method.continue_from
    if not given:
        return None
    for path in () if own is None else (own, previous_checkpoint(own)):
        with suppress(CheckpointError, KeyError, TypeError, AttributeError):
            return _kept(read_torch_file(path))
    with named_by(CONTINUE):
        path = _checkpoint(Path(given).expanduser())
        state = read_torch_file(path)
    try:
        card, found = state["card"], state["shaping"]
        origin = _taken(path, card, state)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{CONTINUE}: {path} does not say what it is of ({error} is missing): expected a "
            "checkpoint of this version of the package; go on with its run for a step, or start "
            f"from its encoder by {START}"
        ) from None
    now = shaping(registry.get(config.method.name), shapes)
    differing = [
        f"{key} was {found.get(key)!r} and is now {value!r}"
        for key, value in now.items()
        if found.get(key) != value
    ]
    if differing:
        raise CheckpointError(
            f"{CONTINUE}={given}: {'; '.join(differing)}: expected the same, since weights and "
            f"optimiser state are taken; give that, or start from the encoder alone by {START} "
            f"in place of {CONTINUE}"
        )
    return origin


def _checkpoint(given: Path) -> Path:
    """Returns the checkpoint that a path names; of a folder the last whole one."""
    if given.is_file():
        read_torch_file(given, checksums=True)
        return given
    run = RunDirectory(given)
    stage = run.result if run.config.is_file() else StageDirectory(given)
    found = resume_point(stage.last_checkpoint).path
    if found is None:
        raise CheckpointError(
            f"{given} has no checkpoint to continue: expected a run directory, the folder of a "
            f"stage, or a file such as {stage.last_checkpoint}"
        )
    return found


def _taken(path: Path, card: Mapping[str, Any], state: Mapping[str, Any]) -> Origin:
    """Returns what a run takes over from the checkpoint of another."""
    entry = {**ancestor(str(path), card), "encoder": state["shaping"]["method.encoder"]}
    before = card["lineage"]
    lineage = {key: before[key] for key in ("teacher",) if key in before}
    if not isinstance(entry["steps"], int) or entry["steps"] < 0:
        raise TypeError("training.steps")
    inherited = continued_parts(card["stage"], card["compute"]["bill"]["parts"])
    return Origin(entry["steps"], inherited, {**lineage, "continued": entry}, state)


def _kept(state: Mapping[str, Any]) -> Origin:
    """Returns what a run has taken over, from a checkpoint of its own."""
    card = state["card"]
    own = own_parts(card["stage"], state["ledger"]["flops"])
    parts = card["compute"]["bill"]["parts"]
    inherited = {part: count for part, count in parts.items() if part not in own}
    return Origin(card["training"]["steps_before"], inherited, card["lineage"])


def ancestor(path: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a card says of an encoder that another comes from; null is unknown.

    Args:
        path: Where it was.
        card: Its card, or that of a checkpoint.
    """
    training, compute = card.get("training") or {}, card.get("compute") or {}
    steps = training.get("steps")
    return {
        "path": path,
        "method": card.get("method"),
        "stage": card.get("stage"),
        "encoder": (card.get("shape") or {}).get("name"),
        "fingerprint": card.get("fingerprint"),
        "steps": None if steps is None else steps + training.get("steps_before", 0),
        "flops": (compute.get("bill") or {}).get("total"),
        "lineage": card.get("lineage", {}),
    }


def lineage_of(config: RunConfig, teacher: str | None, origin: Origin | None) -> dict[str, Any]:
    """Returns the lineage of the last stage, as the card of its encoder holds it.

    Args:
        config: Of the run; `checkpoint` names the encoder that it starts from.
        teacher: The teacher's run directory or file.
        origin: What the run continues.

    Returns:
        Of `continued`, `checkpoint` and `teacher` those that there are, each as `ancestor` returns
        it, with a lineage of its own.
    """
    if origin is not None:
        return origin.lineage
    found = {}
    if config.checkpoint:
        file = find_encoder(config.checkpoint, STUDENT_FIRST)
        found["checkpoint"] = ancestor(str(file), card_of(file))
    if teacher is not None and teacher.startswith(TIMM):
        found["teacher"] = ancestor(teacher, {})
    elif teacher is not None:
        file = teacher_file(teacher)
        found["teacher"] = ancestor(str(file), card_of(file))
    return found
