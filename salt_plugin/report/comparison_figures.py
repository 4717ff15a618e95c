"""Figures of a comparison: accuracy against FLOPs and loss, and what the FLOPs went to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from salt_plugin.report.agreement import agreement
from salt_plugin.report.comparison_table import budget, label
from salt_plugin.report.figures import as_it_is, save
from salt_plugin.report.loss_accuracy import sentence
from salt_plugin.report.paired import ENDPOINT

Rows = Sequence[Mapping[str, Any]]
PANEL = (5.2, 4.2)  # inches
ACROSS = 2


def draw_comparison(folder: Path, runs: Rows, groups: Rows, columns: Sequence[str]) -> list[Path]:
    """Draws `accuracy.png`, `loss.png` and `allocation.png`, and `endpoint.png` where there is one.

    Nothing is drawn where no run was trained.

    Args:
        folder: Where to.
        runs: `arm`, `budget`, `flops`, `loss` and accuracies of each run that is done. One that
            has spent nothing is an encoder before training.
        groups: Their means and deviations over seeds, as `studies.report.groups` gives them.
        columns: The accuracies.

    Returns:
        The files.
    """
    trained = [group for group in groups if group["flops"]]
    if not trained:
        return []
    random = [one for one in groups if not one["flops"]]
    figures = {
        "accuracy": _accuracy(trained, random, columns),
        "loss": _losses([run for run in runs if run["flops"]], columns),
        "allocation": _allocation(trained, columns),
    }
    if ENDPOINT in columns:
        figures[ENDPOINT] = _accuracy(trained, random, [ENDPOINT])
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Returns which points no other beats: at most its cost, at least its value, one strictly.

    Args:
        points: Cost and value.
    """
    return [
        not any(
            other[0] <= cost and other[1] >= value and tuple(other) != (cost, value)
            for other in points
        )
        for cost, value in points
    ]


def _accuracy(trained: Rows, random: Rows, columns: Sequence[str]) -> Any:
    """Returns a panel for each evaluation, with the Pareto frontier of the means."""
    figure, axes = _panels(len(columns))
    budgets = sorted({group["budget"] for group in trained if group["budget"] is not None})
    for axis, column in zip(axes, columns, strict=True):
        _lines(axis, trained, "flops", column, label)
        points = [(group["flops"], group[column]) for group in trained]
        best = sorted(one for one, on in zip(points, pareto(points), strict=True) if on)
        axis.plot(*zip(*best, strict=True), ":", color="black", label="Pareto frontier", zorder=3)
        for group in random:
            name = f"{group['encoder']} before training"
            axis.axhline(group[column], linestyle="--", color="grey", label=name)
        axis.set(xscale="log", xlabel="FLOPs, teacher included", ylabel="accuracy")
        axis.set_title(as_it_is(column))
        if budgets:
            axis.set_xticks(budgets, [f"{one:.3g}".replace("e+", "e") for one in budgets])
            axis.minorticks_off()
    axes[0].legend(fontsize=8)
    return figure


def _losses(runs: Rows, columns: Sequence[str]) -> Any:
    """Returns accuracy against loss, a row of panels each arm, whose losses alone compare."""
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    figure, axes = _panels(len(arms) * len(columns), across=len(columns))
    panels = [(arm, column) for arm in arms for column in columns]
    for axis, (arm, column) in zip(axes, panels, strict=True):
        by_budget: dict[str, list[tuple[float, float]]] = {}
        for run in runs:
            if run["arm"] == arm:
                by_budget.setdefault(budget(run), []).append((run["loss"], run[column]))
        for name, points in by_budget.items():
            axis.scatter(*zip(*points, strict=True), label=name)
        losses, accuracies = zip(*itertools.chain(*by_budget.values()), strict=True)
        fit = agreement(losses, accuracies)
        if fit.slope is not None and fit.intercept is not None:
            ends = np.array([min(losses), max(losses)])
            axis.plot(ends, fit.slope * ends + fit.intercept, "--", color="grey")
        axis.set_title(f"{arm}, {as_it_is(column)}\n{sentence(fit._asdict())}", fontsize=10)
        axis.set(xlabel=f"loss of {arm}", ylabel="accuracy")
        if column == columns[0]:
            axis.legend(fontsize=8)
    figure.suptitle("Losses of different methods do not compare")
    return figure


def _allocation(trained: Rows, columns: Sequence[str]) -> Any:
    """Returns FLOPs by part, and accuracy against the teacher's share where it varies."""
    shared = [group for group in trained if group["teacher_share"] is not None]
    varies = len({group["teacher_share"] for group in shared}) > 1
    figure, (bars, *axes) = _panels(1 + len(columns) * varies)

    def size(group: Mapping[str, Any]) -> str:
        return f"{group['encoder']}, {budget(group)}"

    names = [f"{label(group)}, {budget(group)}" for group in trained]
    left = np.zeros(len(trained))
    for part in trained[0]["parts"]:
        spent = np.array([group["parts"][part] / group["flops"] for group in trained])
        if spent.any():
            bars.barh(names, spent, left=left, label=part.replace("_", " "))
            left += spent
    bars.invert_yaxis()
    bars.set(xlabel="share of the FLOPs", title="what the FLOPs went to")
    bars.grid(visible=False)
    bars.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    for axis, column in zip(axes, columns, strict=False):
        _lines(axis, shared, "teacher_share", column, size)
        axis.set(xlabel="share of the teacher", ylabel="accuracy")
        axis.set_title(f"SALT, {as_it_is(column)}")
        axis.legend(fontsize=8)
    return figure


def _lines(
    axis: Any, groups: Rows, x: str, column: str, name_of: Callable[[Mapping[str, Any]], str]
) -> None:
    """Draws an accuracy with its deviations, a line for each name."""
    for name in dict.fromkeys(map(name_of, groups)):
        line = sorted((one for one in groups if name_of(one) == name), key=lambda one: one[x])
        points = [(one[x], one[column], one[f"{column}_sd"] or 0) for one in line]
        axis.errorbar(*zip(*points, strict=True), marker="o", capsize=3, label=name)


def _panels(count: int, across: int = ACROSS) -> tuple[Any, list[Any]]:
    across = min(count, across)
    down = -(-count // across)
    size = PANEL[0] * across, PANEL[1] * down
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis in axes.flat[:count]:
        axis.grid(alpha=0.3)
    return figure, list(axes.flat[:count])
