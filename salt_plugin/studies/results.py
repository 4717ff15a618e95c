"""A row for each run of a comparison, and what the seeds have in common."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.config.compare import CompareConfig, evaluations
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import RunDirectory, recent_loss
from salt_plugin.studies.comparison import CELLS, PRODUCT, RANDOM, Cell

CONVENTION = "exact"
DONE, UNFINISHED = "done", "unfinished"
PARTS = (
    "teacher_training",
    "initialisation",
    "teacher_forward",
    "student",
    "predictor",
    "decoder",
    "projector",
    "ema",
)
GROUP = ("method", "encoder", "teacher_share", "budget")

Row = dict[str, Any]


def probe_columns(config: CompareConfig) -> list[str]:
    """Returns the names of the accuracies, `EVALUATION_PROTOCOL`."""
    found = evaluations(config).items()
    return [f"{name}_{protocol}" for name, one in found for protocol in one.protocols]


def read_rows(
    cells: Sequence[Cell], config: CompareConfig, root: Path
) -> tuple[list[Row], dict[str, str]]:
    """Reads what the runs have left.

    Args:
        cells: The runs.
        config: The comparison.
        root: Its folder.

    Returns:
        A row for each run, and why runs cannot be compared, by their names. Those and unfinished
        ones have no numbers.
    """
    rows, unusable = [], {}
    for cell in cells:
        row: Row = dict.fromkeys(_columns(config))
        row |= {key: getattr(cell, key) for key in (*GROUP, "seed")}
        row["status"] = UNFINISHED
        folder = root / CELLS / cell.name
        if (folder / PRODUCT).is_file():
            try:
                row |= _measured(cell, folder, config) | {"status": DONE}
            except ConfigError as error:
                unusable[cell.name] = str(error)
        rows.append(row)
    return rows, unusable


def spent(run: RunDirectory) -> Row:
    """Returns what a finished run has cost: FLOPs in all and by part, steps, loss, seconds.

    Raises:
        ConfigError: Its FLOPs are unknown, or counted by another convention.
    """
    summary = json.loads(run.summary.read_text())
    bill = _checked_bill(summary, run)
    stages = {stage["stage"]: stage for stage in summary["stages"]}
    result = run.result
    this = stages[result.root.name]
    teacher = stages["teacher"]["steps"] if "teacher" in stages and len(stages) > 1 else None
    return {
        "flops": bill["total"],
        **{f"flops_{part}": bill["parts"].get(part) for part in PARTS},
        "teacher_steps": teacher,
        "steps": this["steps"],
        "loss": recent_loss(result.metrics),
        "target_rank": this.get("target_rank"),
        "seconds": sum(stage["seconds"] for stage in stages.values()),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as CSV; what is not known is empty."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def groups(rows: Sequence[Row], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Returns mean and standard deviation over seeds.

    Args:
        rows: Of runs; those that are not done are left out.
        columns: The accuracies.

    Returns:
        For each method, encoder, teacher share and budget in the order of the rows: these keys,
        `n`, mean `flops`, mean FLOPs by part under `parts`, and the mean of each accuracy and its
        sample standard deviation under `COLUMN_sd`, None for a single seed.
    """
    together: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == DONE:
            together.setdefault(tuple(row[key] for key in GROUP), []).append(row)
    found = []
    for key, seeds in together.items():
        group: dict[str, Any] = dict(zip(GROUP, key, strict=True)) | {"n": len(seeds)}
        group["flops"] = statistics.fmean(row["flops"] for row in seeds)
        group["parts"] = {
            part: statistics.fmean(row[f"flops_{part}"] or 0 for row in seeds) for part in PARTS
        }
        for column in columns:
            values = [row[column] for row in seeds]
            group[column] = statistics.fmean(values)
            group[f"{column}_sd"] = statistics.stdev(values) if len(values) > 1 else None
        found.append(group)
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Tells which points no other beats: at most its cost and at least its value, one strictly.

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


def _columns(config: CompareConfig) -> list[str]:
    parts = [f"flops_{part}" for part in PARTS]
    steps = ["teacher_steps", "steps", "loss", "target_rank"]
    names = ["method", "encoder", "teacher_share", "budget", "seed", "status", "flops", *parts]
    return [*names, *steps, *probe_columns(config), "seconds"]


def _measured(cell: Cell, folder: Path, config: CompareConfig) -> Row:
    reports = json.loads((folder / PRODUCT).read_text())
    row = {
        f"{name}_{protocol}": reports[name][protocol]["accuracy"]
        for name, one in evaluations(config).items()
        for protocol in one.protocols
    }
    if cell.method == RANDOM:
        return row | {"flops": 0}
    return row | spent(RunDirectory(folder))


def _checked_bill(summary: Mapping[str, Any], run: RunDirectory) -> Mapping[str, Any]:
    bill: Mapping[str, Any] = summary["bill"]
    if bill["convention"] != CONVENTION:
        raise ConfigError(
            f"its FLOPs are counted by the convention {bill['convention']!r}: expected "
            f"{CONVENTION!r}; remove {run.root} and give the command again"
        )
    if bill["total"] is None:
        teacher = run.stored_config()["method"].get("teacher", {}).get("path")
        raise ConfigError(
            f"its FLOPs are unknown, for its teacher {teacher} has no ledger: expected a teacher "
            "that one of our runs trained; name one, or let the run train its own"
        )
    return bill
