"""Studies for people: the jobs before they are submitted, and how the elements are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from salt_plugin.report.units import flops

COLUMNS = ["stage", "element", "state", "step", "loss", "FLOPs", "restarts", "reason", "log"]
NUMBERS = ("step", "loss", "FLOPs", "restarts")
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "lost": "red"}


def jobs_table(jobs: Sequence[Any], profiles: Mapping[str, Any], costs: Mapping[str, Any]) -> Table:
    """Returns a row for each job.

    Args:
        jobs: With `stage`, `elements` and `waits`.
        profiles: Resources of each stage.
        costs: Planned `steps`, `flops` and `hours` of elements by id.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("job")
    table.add_column("elements", justify="right")
    for name in ("waits for", "resources", "steps", "FLOPs", "hours", "first"):
        right = name in ("steps", "FLOPs", "hours")
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for number, job in enumerate(jobs):
        of = [costs[one.id] for one in job.elements if one.id in costs]
        spent = [one.flops for one in of]
        known = bool(of) and None not in spent
        hours = [one.hours for one in of if one.hours is not None]
        table.add_row(
            f"{number} {job.stage}",
            str(len(job.elements)),
            ", ".join(_wait(wait) for wait in job.waits) or "-",
            _resources(profiles[job.stage]),
            _steps(of[0].steps) if of else "-",
            flops(sum(spent)) if known else ("unknown" if of else "-"),
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
        for name, cell, width in zip(COLUMNS, line, widths, strict=True):
            padded = cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            table.append(padded, COLOURS.get(cell) if name == "state" else None)
            table.append("  ")
        table.rstrip()
        table.append("\n")
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


def _steps(of_stages: Sequence[int] | None) -> str:
    """Returns the steps of the first element of a job, by stage."""
    return "unknown" if of_stages is None else " + ".join(f"{steps:,}" for steps in of_stages)


def _wait(wait: Any) -> str:
    place = "" if wait.place is None else f"_{wait.place}"
    return f"{wait.kind}:{wait.on}{place}"


def _resources(profile: Any) -> str:
    parts = [f"{profile.nodes} x {profile.tasks_per_node} tasks", f"{profile.cpus_per_task} CPUs"]
    if profile.gpus:
        parts.append(f"{profile.gpus_per_node} GPUs")
    return ", ".join([*parts, *filter(None, [profile.mem, profile.partition]), profile.time])
