"""Ranking students by their loss alone, where that means something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.checkpoints import read_card
from salt_plugin.config import registry
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.run_directory import OPERATIONAL, RunDirectory, flat, recent_loss

# What a loss is measured on and by; runs that differ here have losses that do not compare.
MEASURE = (
    "input_dir",
    "method.clip",
    "method.data",
    "method.loss",
    "method.mask_group",
    "method.masks",
    "method.transform",
)
SHOWN = 12  # characters of a fingerprint


class Ranked(NamedTuple):
    """A student in its place.

    Attributes:
        run: Its run directory.
        encoder: Its size.
        steps: Its optimiser steps.
        loss: Its loss at the end: the mean of the last 100 rows of `metrics.csv`.
        accuracy: On labelled videos, which `salt track` adds where there are any.
    """

    run: str
    encoder: str
    steps: int
    loss: float
    accuracy: float | None = None


def rank_students(runs: Sequence[Path]) -> list[Ranked]:
    """Returns students of one teacher by their run directories, the lowest loss first (claim C5).

    Raises:
        ConfigError: A folder holds no run of SALT, so that there is no teacher to share; or
            teachers, masks, loss, clips, augmentation or data differ.
        CheckpointError: A student is not finished, or damaged.
    """
    cards = {run: _card(run) for run in runs}
    teachers = {run: card["teacher_fingerprint"] for run, card in cards.items()}
    if len(set(teachers.values())) > 1:
        listed = "; ".join(f"{run}: teacher {name[:SHOWN]}" for run, name in teachers.items())
        raise ConfigError(
            f"these students have different teachers ({listed}). Their losses are distances to "
            "different targets and do not compare: a lower one may only mean a teacher that is "
            "easier to predict. Rank students of one teacher, or probe each for its accuracy"
        )
    _require_same_measure(runs)
    losses = [recent_loss(RunDirectory(run).student.metrics) for run in runs]
    ranked = [
        Ranked(str(run), cards[run]["shape"]["name"], cards[run]["training"]["steps"], loss)
        for run, loss in zip(runs, losses, strict=True)
    ]
    return sorted(ranked, key=lambda student: student.loss)


def _card(root: Path) -> dict[str, Any]:
    run = RunDirectory(root)
    if run.result is not run.student:
        raise ConfigError(
            f"{root} holds a pixel teacher, whose loss does not tell how good it is; name runs of "
            "method=salt"
        )
    method = run.stored_config()["method"]["name"]
    unranked = registry.get(method).unranked
    if unranked is not None:
        raise ConfigError(
            f"{root} holds a run of method={method}, {unranked}. Name runs of "
            "method=salt that share a teacher, or probe each encoder for its accuracy"
        )
    if not run.student.finished:
        raise CheckpointError(
            f"{root} holds no finished student; give its command again to finish it"
        )
    return read_card(run.student.encoder)


def _require_same_measure(runs: Sequence[Path]) -> None:
    """Checks that no key that bears on the loss differs between runs."""
    configs = {run: flat(RunDirectory(run).stored_config()) for run in runs}
    keys = {key for config in configs.values() for key in config if key not in OPERATIONAL}
    differing = []
    for key in sorted(keys):
        found = {run: config.get(key, "absent") for run, config in configs.items()}
        same = all(value == found[runs[0]] for value in found.values())
        if not same and any(key == part or key.startswith(f"{part}.") for part in MEASURE):
            differing.append(f"{key}: " + ", ".join(f"{v} in {run}" for run, v in found.items()))
    if differing:
        raise ConfigError(
            "these students were not set the same task, so their losses do not compare: "
            f"{'; '.join(differing)}. Rank students that differ in none of {', '.join(MEASURE)}, "
            "or probe each for its accuracy"
        )
