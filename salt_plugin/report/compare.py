"""Comparisons for people: the lines while it runs, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from salt_plugin.report.console import console
from salt_plugin.report.units import duration, flops

GroupRow = Mapping[str, Any]


class Lines:
    """A line for each run as it starts, finishes or fails; used as a context.

    On a terminal, the runs at work stand below with what they said last.

    Args:
        total: Runs to come.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._done = 0
        self._console = console(stderr=True)
        self._live = Live(console=self._console, transient=True, refresh_per_second=2)

    def __enter__(self) -> Lines:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def started(self, job: str) -> None:
        """Says that a run was started."""
        self._say(f"{job}: started")

    def running(self, states: Mapping[str, str]) -> None:
        """Shows what the runs at work said last."""
        if self._console.is_terminal:
            width = self._console.width
            lines = [Text(f"{job}: {said}"[: width - 1]) for job, said in states.items()]
            self._live.update(Group(*lines))

    def finished(self, job: str, seconds: float) -> None:
        """Says that a run has finished."""
        self._say(f"{job}: finished in {duration(seconds)}  [{self._count()}/{self.total}]")

    def failed(self, job: str, reason: str) -> None:
        """Says that a run has failed."""
        self._say(f"{job}: failed: {reason}  [{self._count()}/{self.total}]")

    def _count(self) -> int:
        self._done += 1
        return self._done

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def markdown_table(groups: Sequence[GroupRow], columns: Sequence[str]) -> str:
    """Returns mean and standard deviation over seeds as a Markdown table.

    Args:
        groups: As `studies.results.groups` returns them.
        columns: The accuracies.
    """
    header = _header(columns)
    rows = [_cells(group, columns) for group in groups]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comparison_table(groups: Sequence[GroupRow], columns: Sequence[str]) -> Table:
    """Returns the same for the terminal, the deviations on lines of their own."""
    title = "Accuracy of frozen encoders, mean ± standard deviation over seeds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("budget", "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name.replace("_", "\n"), justify="right")
    for group in groups:
        cells = _cells(group, columns)[-len(columns) :]
        accuracies = [cell.replace(" ± ", "\n± ") for cell in cells]
        table.add_row(label(group), budget(group), str(group["n"]), *accuracies)
    return table


def label(group: GroupRow) -> str:
    """Returns what a line or bar stands for: method, encoder and teacher share."""
    share = group["teacher_share"]
    return f"{group['method']} {group['encoder']}" + ("" if share is None else f" ({share:g})")


def budget(group: GroupRow) -> str:
    """Returns a budget for people."""
    found = group["budget"]
    if found is None:
        return "steps"
    return flops(found) if found else "0"


def _header(columns: Sequence[str]) -> list[str]:
    return ["method", "encoder", "teacher share", "budget", "spent", "seeds", *columns]


def _cells(group: GroupRow, columns: Sequence[str]) -> list[str]:
    share = group["teacher_share"]
    found = [group["method"], group["encoder"], "" if share is None else f"{share:g}"]
    found += [budget(group), flops(group["flops"]) if group["flops"] else "0", str(group["n"])]
    for column in columns:
        sd = group[f"{column}_sd"]
        found.append(f"{group[column]:.3f}" + ("" if sd is None else f" ± {sd:.3f}"))
    return found
