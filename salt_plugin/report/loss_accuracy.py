"""Loss against accuracy: the figure and the tables of `salt track`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from salt_plugin.report.accuracies import caption
from salt_plugin.report.figures import save

LOSS, ACCURACY, RANK = "tab:blue", "tab:red", "tab:green"


def draw_track(
    path: Path, points: Sequence[Mapping[str, float]], agreement: Mapping[str, Any], task: str
) -> None:
    """Draws loss and accuracy over steps, one against the other, and the effective rank.

    Args:
        path: The PNG.
        points: `step`, `loss`, `accuracy` and `effective_rank` of each encoder.
        agreement: `n`, `r2`, `spearman`, `slope` and `intercept`; the last four may be None.
        task: What the accuracy is of.
    """
    steps, losses, accuracies, ranks = (
        np.array([point[name] for point in points])
        for name in ("step", "loss", "accuracy", "effective_rank")
    )
    with plt.rc_context({"font.size": 12}):
        figure, (over, against, rank) = plt.subplots(1, 3, figsize=(17, 4.6))
        over.plot(steps, losses, "o-", color=LOSS)
        over.set(xlabel="step", title="over training: loss and accuracy")
        over.set_ylabel("training loss", color=LOSS)
        beside = over.twinx()
        beside.plot(steps, accuracies, "s-", color=ACCURACY)
        beside.set_ylabel(f"{task} accuracy", color=ACCURACY)

        dots = against.scatter(losses, accuracies, c=steps, s=60, zorder=3)
        figure.colorbar(dots, ax=against, label="step")
        if agreement["slope"] is not None:
            ends = np.array([losses.min(), losses.max()])
            fitted = agreement["slope"] * ends + agreement["intercept"]
            against.plot(ends, fitted, "--", color="grey")
        against.set(xlabel="training loss", ylabel=f"{task} accuracy", title=sentence(agreement))

        rank.plot(steps, ranks, "o-", color=RANK)
        rank.set(xlabel="step", ylabel="directions in use", title="effective rank of the features")
        for axis in (over, against, rank):
            axis.locator_params(axis="x", nbins=5)
            axis.grid(alpha=0.3)
        figure.tight_layout()
        save(figure, path)


def sentence(agreement: Mapping[str, Any]) -> str:
    """Returns R2 and rank correlation in words."""
    if agreement["r2"] is None:
        return f"no fit from {agreement['n']} encoder{'s' * (agreement['n'] != 1)}"
    return f"R² = {agreement['r2']:.2f}, rank correlation {agreement['spearman']:.2f}"


def track_table(points: Sequence[Mapping[str, float]], about: Mapping[str, Any]) -> Table:
    """Returns the encoders of one run as a table.

    Args:
        points: `step`, `loss`, `accuracy`, `effective_rank` and `spread` of each encoder.
        about: `task`, which the accuracy is of, `clip` and `leaks`.
    """
    table = _table("Encoders kept in training", about)
    for title in ("step", "loss", f"{about['task']}\naccuracy", "effective\nrank", "spread"):
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        numbers = f"{point['loss']:.4f}", f"{point['accuracy']:.3f}"
        spectrum = f"{point['effective_rank']:.1f}", f"{point['spread']:.3f}"
        table.add_row(f"{point['step']:,}", *numbers, *spectrum)
    return table


def ranking_table(students: Sequence[Mapping[str, Any]], about: Mapping[str, Any] | None) -> Table:
    """Returns students of one teacher as a table, in the order given.

    Args:
        students: `run`, `encoder`, `steps`, `loss` and, unless `about` is None, `accuracy`.
        about: As for `track_table`; None where only losses are compared.
    """
    table = _table("Students of one teacher, by their loss", about)
    table.add_column("", justify="right")
    for title in ("run", "encoder"):
        table.add_column(title, overflow="fold")
    for title in ("steps", "loss", *([f"{about['task']}\naccuracy"] if about else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for place, student in enumerate(students, start=1):
        numbers = [f"{student['steps']:,}", f"{student['loss']:.4f}"]
        if about:
            numbers.append(f"{student['accuracy']:.3f}")
        table.add_row(str(place), student["run"], student["encoder"], *numbers)
    return table


def _table(title: str, about: Mapping[str, Any] | None) -> Table:
    below = caption(about["clip"], about["leaks"]) if about else None
    return Table(title=title, title_justify="left", caption=below, caption_justify="left")
