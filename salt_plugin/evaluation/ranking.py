"""Ranking students by their loss alone, where that means something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from salt_plugin.checkpoints import load_encoder, read_card
from salt_plugin.config import registry
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.evaluation.track import Score
from salt_plugin.run_directory import RunDirectory, flat, recent_loss

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
UNRELATED = (
    "method.data.cache",
    "method.data.max_bad",
    "method.data.root",  # of earlier versions
    "method.data.timeout",
)
SHOWN = 12  # characters of a fingerprint


class Ranked(NamedTuple):
    """A student in its place.

    Attributes:
        run: Its run directory.
        encoder: Its size.
        steps: Its optimiser steps.
        loss: Its loss at the end: the mean of the last 100 rows of `metrics.csv`.
        accuracy: What the score gave; None where none was asked for.
    """

    run: str
    encoder: str
    steps: int
    loss: float
    accuracy: float | None


def check_comparable(runs: Sequence[Path]) -> None:
    """Checks that the losses of some students may be compared.

    Args:
        runs: Their run directories.

    Raises:
        ConfigError: A folder holds no run of SALT, so that there is no teacher to share; or
            teachers, masks, loss, clips, augmentation or data differ.
        CheckpointError: A student is not finished.
    """
    teachers = {run: _card(run)["teacher_fingerprint"] for run in runs}
    if len(set(teachers.values())) > 1:
        listed = "; ".join(f"{run}: teacher {name[:SHOWN]}" for run, name in teachers.items())
        raise ConfigError(
            f"these students have different teachers ({listed}). Their losses are distances to "
            "different targets and do not compare: a lower one may only mean a teacher that is "
            "easier to predict. Rank students of one teacher, or probe each for its accuracy"
        )
    differing = _differing([RunDirectory(run).stored_config() for run in runs])
    if differing:
        listed = "; ".join(
            f"{key}: "
            + ", ".join(f"{value} in {run}" for run, value in zip(runs, found, strict=True))
            for key, found in differing.items()
        )
        raise ConfigError(
            "these students were not set the same task, so their losses do not compare: "
            f"{listed}. Rank students that differ in none of {', '.join(MEASURE)}, or probe each "
            "for its accuracy"
        )


def rank_students(
    runs: Sequence[Path], score: Score | None = None, device: str | torch.device = "cpu"
) -> list[Ranked]:
    """Returns students of one teacher, the lowest loss first (claim C5).

    Args:
        runs: Their run directories.
        score: Returns an encoder's accuracy; None leaves accuracies out.
        device: Where the encoders are put for the score.

    Raises:
        ConfigError: As `check_comparable`.
        CheckpointError: A student is not finished, or damaged.
    """
    check_comparable(runs)
    ranked = []
    for run in runs:
        card = _card(run)
        loss = recent_loss(RunDirectory(run).student.metrics)
        accuracy = None if score is None else score(load_encoder(run, device))
        place = Ranked(str(run), card["shape"]["name"], card["training"]["steps"], loss, accuracy)
        ranked.append(place)
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


def _differing(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns the values of the keys that bear on the loss and are not the same in all runs."""
    trees = [flat(config) for config in configs]
    keys = {
        key
        for tree in trees
        for key in tree
        if f"{key}.".startswith(tuple(f"{part}." for part in MEASURE)) and key not in UNRELATED
    }
    values = {key: [tree.get(key, "absent") for tree in trees] for key in sorted(keys)}
    return {key: found for key, found in values.items() if any(one != found[0] for one in found)}
