"""Figures of a comparison: accuracy against FLOPs and loss, and what the FLOPs went to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from salt_plugin.report.compare import budget, label
from salt_plugin.report.figures import as_it_is, save
from salt_plugin.report.loss_accuracy import sentence

Rows = Sequence[Mapping[str, Any]]
PANEL = (5.2, 4.2)  # inches
ACROSS = 2


def draw_accuracy(
    path: Path,
    trained: Rows,
    random: Rows,
    columns: Sequence[str],
    frontiers: Mapping[str, Sequence[bool]],
) -> None:
    """Draws accuracy against FLOPs, a panel each evaluation, with the Pareto frontier.

    Args:
        path: Where.
        trained: Means and deviations by method, encoder, share and budget.
        random: The same of encoders before training.
        columns: The accuracies.
        frontiers: For each of them, which of `trained` no other beats.
    """
    figure, axes = _panels(len(columns))
    budgets = sorted({group["budget"] for group in trained if group["budget"] is not None})
    for axis, column in zip(axes, columns, strict=True):
        for name, line in _lines(trained).items():
            means = [group[column] for group in line]
            deviations = [group[f"{column}_sd"] or 0 for group in line]
            spent = [group["flops"] for group in line]
            axis.errorbar(spent, means, deviations, marker="o", capsize=3, label=name)
        best = sorted(
            (group["flops"], group[column])
            for group, on in zip(trained, frontiers[column], strict=True)
            if on
        )
        axis.plot(*zip(*best, strict=True), ":", color="black", label="Pareto frontier", zorder=3)
        for group in random:
            name = f"{group['encoder']} before training"
            axis.axhline(group[column], linestyle="--", color="grey", label=name)
        axis.set(xscale="log", xlabel="FLOPs, teacher included", ylabel="accuracy")
        axis.set_title(as_it_is(column))
        if budgets:
            axis.set_xticks(budgets, [f"{budget:.3g}".replace("e+", "e") for budget in budgets])
            axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    save(figure, path)


def draw_losses(
    path: Path,
    runs: Rows,
    columns: Sequence[str],
    fits: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    """Draws accuracy against loss, a row of panels each method, whose losses alone compare.

    Args:
        path: Where.
        runs: `method`, `budget`, `loss` and accuracies of each run.
        columns: The accuracies.
        fits: For method and accuracy, as `report.agreement.agreement` gives it.
    """
    methods = list(dict.fromkeys(run["method"] for run in runs))
    figure, axes = _panels(len(methods) * len(columns), across=len(columns))
    for number, method in enumerate(methods):
        row = axes[number * len(columns) : (number + 1) * len(columns)]
        of = [run for run in runs if run["method"] == method]
        for axis, column in zip(row, columns, strict=True):
            for name in dict.fromkeys(budget(run) for run in of):
                some = [run for run in of if budget(run) == name]
                axis.scatter(
                    [run["loss"] for run in some], [run[column] for run in some], label=name
                )
            fit = fits[method, column]
            if fit["slope"] is not None:
                ends = np.array([min(run["loss"] for run in of), max(run["loss"] for run in of)])
                axis.plot(ends, fit["slope"] * ends + fit["intercept"], "--", color="grey")
            axis.set_title(f"{method}, {as_it_is(column)}\n{sentence(fit)}", fontsize=10)
            axis.set(xlabel=f"loss of {method}", ylabel="accuracy")
            axis.grid(alpha=0.3)
        row[0].legend(fontsize=8)
    figure.suptitle("Losses of different methods do not compare")
    save(figure, path)


def draw_allocation(path: Path, trained: Rows, columns: Sequence[str]) -> None:
    """Draws FLOPs by part, and accuracy against the teacher's share where it varies.

    Args:
        path: Where.
        trained: As for `draw_accuracy`, with `parts`.
        columns: The accuracies.
    """
    shared = [group for group in trained if group["teacher_share"] is not None]
    varies = len({group["teacher_share"] for group in shared}) > 1
    figure, axes = _panels(1 + len(columns) * varies)
    bars = axes[0]
    names = [f"{label(group)}, {budget(group)}" for group in trained]
    left = np.zeros(len(trained))
    for part in dict.fromkeys(part for group in trained for part in group["parts"]):
        spent = np.array([group["parts"].get(part, 0) / group["flops"] for group in trained])
        if spent.any():
            bars.barh(names, spent, left=left, label=part.replace("_", " "))
            left += spent
    bars.invert_yaxis()
    bars.set(xlabel="share of the FLOPs", title="what the FLOPs went to")
    bars.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    for axis, column in zip(axes[1:], columns, strict=False):
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for group in sorted(shared, key=lambda one: one["teacher_share"]):
            lines.setdefault(f"{group['encoder']}, {budget(group)}", []).append(group)
        for name, line in lines.items():
            shares = [group["teacher_share"] for group in line]
            deviations = [group[f"{column}_sd"] or 0 for group in line]
            means = [group[column] for group in line]
            axis.errorbar(shares, means, deviations, marker="o", capsize=3, label=name)
        axis.set(
            xlabel="share of the teacher", ylabel="accuracy", title=f"SALT, {as_it_is(column)}"
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save(figure, path)


def _panels(count: int, across: int = ACROSS) -> tuple[Any, list[Any]]:
    across = min(count, across)
    down = -(-count // across)
    size = PANEL[0] * across, PANEL[1] * down
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def _lines(groups: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Returns the groups of each line, by its label, in order of cost."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for group in sorted(groups, key=lambda one: one["flops"]):
        lines.setdefault(label(group), []).append(group)
    return {name: lines[name] for name in dict.fromkeys(label(group) for group in groups)}
