"""Comparisons for people: the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from salt_plugin.report.console import table
from salt_plugin.report.units import flops

GroupRow = Mapping[str, Any]


def markdown(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Returns a Markdown table; what is not known is empty."""

    def text(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(text, line))} |\n" for line in lines)


def markdown_table(groups: Sequence[GroupRow], columns: Sequence[str]) -> str:
    """Returns mean and standard deviation over seeds as a Markdown table.

    Args:
        groups: As `studies.report.groups` returns them.
        columns: The accuracies.
    """
    trial = ["trial"] * any(group.get("trial") for group in groups)
    header = ["method", "encoder", "teacher share", *trial, "budget", "spent", "seeds", *columns]
    rows = []
    for group in groups:
        spent = flops(group["flops"]) if group["flops"] else "0"
        key = [named(group), group["encoder"], group["teacher_share"]]
        key += [*map(group.get, trial), budget(group), spent, group["n"]]
        rows.append([*key, *(_accuracy(group, column) for column in columns)])
    return markdown(header, rows)


def comparison_table(groups: Sequence[GroupRow], columns: Sequence[str]) -> Table:
    """Returns the same for the terminal, the deviations on lines of their own."""
    title = "Accuracy of frozen encoders, mean ± standard deviation over seeds"
    headings = ["budget", "seeds", *(column.replace("_", "\n") for column in columns)]
    shown = table([""], headings, title=title, box=SIMPLE_HEAD, pad_edge=False)
    for group in groups:
        accuracies = [_accuracy(group, column).replace(" ± ", "\n± ") for column in columns]
        shown.add_row(label(group), budget(group), str(group["n"]), *accuracies)
    return shown


def label(group: GroupRow) -> str:
    """Returns what a line or bar stands for: arm, encoder, teacher share and trial."""
    share, trial = group["teacher_share"], group.get("trial")
    name = f"{named(group)} {group['encoder']}" + ("" if share is None else f" ({share:g})")
    return f"{name} {trial}" if trial else name


def named(group: GroupRow) -> str:
    """Returns an arm; of one with two encoders which of them, starred where it is chosen."""
    kind = group.get("kind")
    return group["arm"] + (f" {kind}{'*' * group['chosen']}" if kind else "")


def budget(group: GroupRow) -> str:
    """Returns a budget for people."""
    found = group["budget"]
    if found is None:
        return "steps"
    return flops(found) if found else "0"


def _accuracy(group: GroupRow, column: str) -> str:
    sd = group[f"{column}_sd"]
    return f"{group[column]:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
