"""Studies for people: the jobs before they are submitted, and how the elements are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from salt_plugin.report.units import flops

# Of a table that goes to a file or a pipe.
WIDTH = 200

COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "lost": "red"}


def jobs_table(jobs: Sequence[Any], profiles: Mapping[str, Any], costs: Mapping[str, Any]) -> Table:
    """Returns a row for each job.

    Args:
        jobs: With `stage`, `elements` and `waits`.
        profiles: Resources of each stage.
        costs: Planned `flops` and `hours` of elements by id.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("job")
    table.add_column("elements", justify="right")
    for name in ("waits for", "resources", "FLOPs", "hours", "first"):
        right = name in ("FLOPs", "hours")
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
            flops(sum(spent)) if known else ("unknown" if of else "-"),
            f"{sum(hours):.3g}" if hours else "-",
            job.elements[0].name,
        )
    return table


def status_table(rows: Sequence[Mapping[str, Any]], study: Path) -> Table:
    """Returns a row for each element, logs relative to the study."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("stage", "element", "state", "step", "loss", "FLOPs", "restarts", "reason", "log"):
        right = name in ("step", "loss", "FLOPs", "restarts")
        wraps = name in ("reason", "log")
        table.add_column(
            name, justify="right" if right else "left", no_wrap=not wraps, overflow="fold"
        )
    for row in rows:
        log = Path(row["log"]) if row["log"] else None
        colour = COLOURS.get(row["state"])
        table.add_row(
            row["stage"],
            row["element"],
            f"[{colour}]{row['state']}[/]" if colour else row["state"],
            "-" if row["step"] is None else f"{row['step']:,}",
            "-" if row["loss"] is None else f"{row['loss']:.4g}",
            "-" if row["flops"] is None else flops(row["flops"]),
            str(row["restarts"]),
            row["reason"].replace("[", "\\["),
            str(log.relative_to(study)) if log else "-",
        )
    return table


def console() -> Console:
    """Returns a console that does not fold tables in files and pipes."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def _wait(wait: Any) -> str:
    place = "" if wait.place is None else f"_{wait.place}"
    return f"{wait.kind}:{wait.on}{place}"


def _resources(profile: Any) -> str:
    parts = [f"{profile.nodes} x {profile.tasks_per_node} tasks", f"{profile.cpus_per_task} CPUs"]
    if profile.gpus_per_node:
        parts.append(f"{profile.gpus_per_node} GPUs")
    return ", ".join([*parts, *filter(None, [profile.mem, profile.partition]), profile.time])
