"""Frozen evaluations in the terminal: bars of progress, and a table of accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """A bar for each title, on standard error; used as a context.

    Args:
        disable: Show none.
    """

    def __init__(self, disable: bool = False) -> None:
        super().__init__(console=console(stderr=True), disable=disable)
        self._bars: dict[str, TaskID] = {}

    def __call__(self, title: str, done: int, total: int) -> None:
        """Moves the bar of a title."""
        if title not in self._bars:
            self._bars[title] = self.add_task(title)
        self.update(self._bars[title], completed=done, total=total)


def print_probes(reports: Sequence[Mapping[str, Any]]) -> None:
    """Prints what the evaluations of encoders found, as one table.

    Args:
        reports: As `ProbeReport.as_dict` gives them.
    """
    out = console()
    names = [
        found["encoder"] + (", random weights" if found["random_weights"] else "")
        for found in reports
    ]
    title = names[0] if len(names) == 1 else f"{len(names)} encoders"
    out.print(f"{title}, frozen: accuracy on the test list", soft_wrap=True)
    captions = [caption(found["clip"], found["leaks"]) for found in reports]
    if len(set(captions)) > 1:
        captions = [f"{name}: {one}" for name, one in zip(names, captions, strict=True)]
    lines = list(dict.fromkeys(captions))
    table = Table(caption_justify="left")
    several = len(names) > 1
    if several:
        table.add_column("encoder", overflow="fold")
    table.add_column("protocol", no_wrap=True)
    table.add_column("keeps")
    for column in ("accuracy", "95 % interval", "chance", "videos"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("chosen")
    for name, found in zip(names, reports, strict=True):
        for number, (control, protocol, one) in enumerate(_rows(found)):
            label = f"{control}: {protocol}" if control not in ("", protocol) else protocol
            table.add_row(*([name if number == 0 else ""] if several else []), label, *_cells(one))
            if one["unconverged"]:
                lines.append(
                    f"Warning: {f'{name}, ' if several else ''}{label} has not converged: "
                    f"{one['unconverged']}; give more --epochs, or a smaller --batch-size"
                )
        table.add_section()
    table.caption = "\n".join(lines)
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


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields the control, the protocol and the numbers of each result."""
    for control, results in {"": found, **found.get("controls", {})}.items():
        for protocol, one in results.items():
            if isinstance(one, Mapping) and "accuracy" in one:
                yield control, protocol, one


def _cells(one: Mapping[str, Any]) -> list[str]:
    low, high = one["interval"]
    chosen = ""
    if "best" in one:
        best = one["best"]
        if "learning_rate" in best:
            chosen = f"LR {best['learning_rate']:g}, WD {best['weight_decay']:g}"
        else:
            chosen = f"dimension {best['dimension']}"
            chosen += f", C {best['regularization']:g}" if best["regularization"] else ""
        chosen += f", on {one['chosen_on']}" if one["chosen_on"] else ""
    interval = f"{low:.3f}-{high:.3f}"
    numbers = [f"{one['accuracy']:.3f}", interval, f"{one['chance']:.3f}", str(one["n_test"])]
    return [one["kept"], *numbers, chosen]
