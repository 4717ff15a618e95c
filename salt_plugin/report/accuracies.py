"""Frozen evaluations in the terminal: bars of progress, and a table of accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import Progress, TaskID
from rich.table import Table

from salt_plugin.report.console import console

LEAKS = {
    "test_in_train": "test videos that are in the training list, too",
    "val_in_train": "videos to choose on that are in the training list, too",
    "test_in_val": "test videos that are in the list to choose on, too",
    "two_labels": "videos with two labels",
}


class Bars(Progress):
    """A bar for each title, on standard error; used as a context."""

    def __init__(self) -> None:
        super().__init__(console=console(stderr=True))
        self._bars: dict[str, TaskID] = {}

    def __call__(self, title: str, done: int, total: int) -> None:
        """Moves the bar of a title."""
        if title not in self._bars:
            self._bars[title] = self.add_task(title)
        self.update(self._bars[title], completed=done, total=total)


def print_probe(encoder: str, found: Mapping[str, Any]) -> None:
    """Prints what an evaluation found.

    Args:
        encoder: Name of the encoder.
        found: As `ProbeReport.as_dict` gives it.
    """
    out = console()
    weights = ", random weights" if found["random_weights"] else ""
    out.print(f"{encoder}{weights}, frozen: accuracy on the test list", soft_wrap=True)
    table = Table(caption=caption(found["clip"], found["leaks"]), caption_justify="left")
    table.add_column("protocol", no_wrap=True)
    for title in ("accuracy", "95 % interval", "chance", "videos"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("chosen")
    for name, one in found.items():
        if isinstance(one, Mapping) and "accuracy" in one:
            table.add_row(name, *_cells(one))
    for control, results in found.get("controls", {}).items():
        table.add_section()
        for name, one in results.items():
            table.add_row(control if name == control else f"{control}: {name}", *_cells(one))
    out.print(table)


def caption(clip: Mapping[str, Any], leaks: Mapping[str, int]) -> str:
    """Returns what stands below the accuracies of an evaluation.

    Args:
        clip: `frames`, `size`, `step` and `fps`, of the last two one None.
        leaks: What the lists have in common that they should not, by kind.
    """
    rate = f"step {clip['step']}" if clip["fps"] is None else f"{clip['fps']:g} frames a second"
    lines = [f"{clip['frames']} frames of {clip['size']} x {clip['size']} pixels, {rate}"]
    lines += [f"Warning: {words}: {leaks[key]}" for key, words in LEAKS.items() if leaks[key]]
    return "\n".join(lines)


def _cells(one: Mapping[str, Any]) -> list[str]:
    low, high = one["interval"]
    chosen = ""
    if "best" in one:
        chosen = f"LR {one['best']['learning_rate']:g}, WD {one['best']['weight_decay']:g}"
        chosen += f", on {one['chosen_on']}" if one["chosen_on"] else ""
    interval = f"{low:.3f}-{high:.3f}"
    return [f"{one['accuracy']:.3f}", interval, f"{one['chance']:.3f}", str(one["n_test"]), chosen]
