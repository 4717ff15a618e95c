"""Studies for people: the jobs before they are submitted, lines while they run, how they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from salt_plugin.report.console import console
from salt_plugin.report.units import duration, flops

COLUMNS = ["stage", "element", "state", "step", "loss", "FLOPs", "restarts", "reason", "log"]
NUMBERS = ("step", "loss", "FLOPs", "restarts")
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "lost": "red"}


class Lines(Live):
    """A line for each element as it starts, finishes or fails, or for each job; used as a context.

    On a terminal, the elements at work stand below with what they said last.

    Args:
        total: Elements to come.
    """

    def __init__(self, total: int = 0) -> None:
        super().__init__(console=console(stderr=True), transient=True, refresh_per_second=2)
        self.total = total
        self._done = 0

    def started(self, element: str) -> None:
        """Says that an element was started."""
        self._say(f"{element}: started")

    def running(self, states: Mapping[str, str]) -> None:
        """Shows what the elements at work said last."""
        if self.console.is_terminal:
            width = self.console.width
            lines = [Text(f"{element}: {said}"[: width - 1]) for element, said in states.items()]
            self.update(Group(*lines))

    def finished(self, element: str, seconds: float) -> None:
        """Says that an element has finished."""
        self._end(f"{element}: finished in {duration(seconds)}")

    def failed(self, element: str, reason: str) -> None:
        """Says that an element has failed."""
        self._end(f"{element}: failed: {reason}")

    def submitted(self, submission: Any) -> None:
        """Says that a job was submitted, with `stage`, `job`, `elements` and `dependency`."""
        many = len(submission.elements)
        what = f"an array of {many}" if many > 1 else submission.elements[0]
        waits = f", {submission.dependency}" if submission.dependency else ""
        self._say(f"{submission.stage}: job {submission.job}, {what}{waits}")

    def _end(self, text: str) -> None:
        self._done += 1
        self._say(f"{text}  [{self._done}/{self.total}]")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def jobs_table(jobs: Sequence[Any], profiles: Mapping[str, Any], costs: Mapping[str, Any]) -> Table:
    """Returns a row for each job.

    Args:
        jobs: With `stage`, `elements` and what they wait for.
        profiles: Resources of each stage.
        costs: Planned `steps`, `flops` and `hours` of elements by id.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    numbers = ("elements", "steps", "FLOPs", "hours")
    names = ("job", "elements", "waits for", "resources", "steps", "FLOPs", "hours", "first")
    for name in names:
        right = name in numbers
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for number, job in enumerate(jobs):
        of = [costs[one.id] for one in job.elements if one.id in costs]
        spent = [one.flops for one in of]
        hours = [one.hours for one in of if one.hours is not None]
        steps = of[0].steps if of else []  # of the first element, by stage
        table.add_row(
            f"{number} {job.stage}",
            str(len(job.elements)),
            ",".join(job.waits).format(*range(number)) or "-",
            _resources(profiles[job.stage]),
            "unknown" if steps is None else " + ".join(f"{one:,}" for one in steps) or "-",
            flops(None if None in spent else sum(spent)) if of else "-",
            f"{sum(hours):.3g}" if hours else "-",
            job.elements[0].name,
        )
    return table


def status_table(rows: Sequence[Mapping[str, Any]], study: Path) -> Text:
    """Returns a line for each element, logs relative to the study.

    Rich's own tables take half a second for a thousand rows.
    """
    cells = [COLUMNS, *(_cells(row, study) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = Text("\n")
    for number, line in enumerate(cells):
        padded = (
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        )
        table.append("  ".join(padded).rstrip() + "\n", COLOURS.get(line[2]))
        if number == 0:
            table.append("-" * (sum(widths) + 2 * len(widths) - 2) + "\n")
    return table


def _cells(row: Mapping[str, Any], study: Path) -> list[str]:
    return [
        row["stage"],
        row["element"],
        row["state"],
        "-" if row["step"] is None else f"{row['step']:,}",
        "-" if row["loss"] is None else f"{row['loss']:.4g}",
        "-" if row["flops"] is None else flops(row["flops"]),
        str(row["restarts"]),
        row["reason"],
        os.path.relpath(row["log"], study) if row["log"] else "-",
    ]


def _resources(profile: Any) -> str:
    parts = [f"{profile.nodes} x {profile.tasks_per_node} tasks", f"{profile.cpus_per_task} CPUs"]
    if profile.gpus:
        parts.append(f"{profile.gpus_per_node} GPUs")
    return ", ".join([*parts, *filter(None, [profile.mem, profile.partition]), profile.time])
