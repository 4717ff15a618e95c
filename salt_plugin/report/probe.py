"""Frozen evaluations as they are printed: progress, and a table of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table


class Bars(Progress):
    """A bar for each title, on standard error; used as a context."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._titles: dict[str, TaskID] = {}

    def __call__(self, title: str, done: int, total: int) -> None:
        """Moves the bar of a title."""
        if title not in self._titles:
            self._titles[title] = self.add_task(title)
        self.update(self._titles[title], completed=done, total=total)


def print_probe(encoder: str, found: Mapping[str, Any]) -> None:
    """Prints what an evaluation found.

    Args:
        encoder: Name of the encoder.
        found: By protocol, and by control and protocol under `controls`.
    """
    console = Console()
    table = Table(title=f"{encoder}, frozen: accuracy on the test list", title_justify="left")
    table.add_column("protocol", no_wrap=True)
    for title in ("accuracy", "95 % interval", "chance", "videos"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("chosen")
    for name, one in found.items():
        if name != "controls":
            table.add_row(name, *_cells(one))
    for control, results in found.get("controls", {}).items():
        table.add_section()
        for name, one in results.items():
            table.add_row(control if name == control else f"{control}: {name}", *_cells(one))
    console.print(table)


def _cells(one: Mapping[str, Any]) -> list[str]:
    low, high = one["interval"]
    chosen = ""
    if "best" in one:
        best = one["best"]
        chosen = f"LR {best['learning_rate']:g}, WD {best['weight_decay']:g}"
        if one["chosen_on"]:
            chosen += f", on {one['chosen_on']}"
    interval = f"{low:.3f}-{high:.3f}"
    return [f"{one['accuracy']:.3f}", interval, f"{one['chance']:.3f}", str(one["n_test"]), chosen]
