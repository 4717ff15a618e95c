"""What came out of runs at matched FLOPs: a row for each, means over seeds, figures.

As a process, of a comparison.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.config.compare import CompareConfig, evaluations
from salt_plugin.config.typed import typed
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.errors import ConfigError
from salt_plugin.files import write_text
from salt_plugin.report.comparison_table import markdown_table
from salt_plugin.run_directory import RunDirectory, recent_loss
from salt_plugin.studies import comparison
from salt_plugin.studies.attempts import FAILED, ElementDirectory
from salt_plugin.studies.comparison import Cell
from salt_plugin.studies.study import COMPARISON

CONVENTION = "exact"
DONE = "done"
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

STAGES = (comparison.CELLS, comparison.PROBES, comparison.BASELINES)

Row = dict[str, Any]


def cost_of(run: RunDirectory) -> Row:
    """Returns what a finished run has cost: FLOPs in all and by part, steps, loss, seconds.

    Raises:
        ConfigError: Its FLOPs are unknown, or counted by another convention.
    """
    summary = json.loads(run.summary.read_text())
    bill = summary["bill"]
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
    stages = {stage["stage"]: stage for stage in summary["stages"]}
    result = run.result
    this = stages[result.root.name]
    return {
        "flops": bill["total"],
        **{f"flops_{part}": bill["parts"].get(part) for part in PARTS},
        "teacher_steps": stages["teacher"]["steps"] if {"teacher"} < stages.keys() else None,
        "steps": this["steps"],
        "loss": recent_loss(result.metrics),
        "target_rank": this.get("target_rank"),
        "seconds": sum(stage["seconds"] for stage in stages.values()),
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as CSV; what is not known is empty."""
    table = io.StringIO(newline="")
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def groups(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
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
        group: Row = dict(zip(GROUP, key, strict=True)) | {"n": len(seeds)}
        group["flops"] = statistics.fmean(row["flops"] for row in seeds)
        group["parts"] = {
            part: statistics.fmean(row[f"flops_{part}"] or 0 for row in seeds) for part in PARTS
        }
        for column in columns:
            accuracies = [row[column] for row in seeds]
            group[column] = statistics.fmean(accuracies)
            group[f"{column}_sd"] = statistics.stdev(accuracies) if len(seeds) > 1 else None
        found.append(group)
    return found


def write_comparison(rows: Sequence[Row], columns: Sequence[str], table: Path) -> list[Path]:
    """Writes the table of runs that are compared, and `figures/` beside it; returns the files."""
    from salt_plugin.report.comparison_figures import draw_comparison

    found = groups(rows, columns)
    write_text(table, markdown_table(found, columns))
    done = [row for row in rows if row["status"] == DONE]
    return [table, *draw_comparison(table.parent / "figures", done, found, columns)]


def outcome(root: Path) -> tuple[list[Row], list[str], dict[str, str]]:
    """Reads the folder of a comparison.

    Returns:
        Rows of runs and baselines, of which those that are not done have no numbers; the names of
        the accuracies, `EVALUATION_PROTOCOL`; why runs are not done, by their names.
    """
    stored = read_yaml(root / COMPARISON)
    stored.pop("common")
    config: CompareConfig = typed(CompareConfig, stored, "compare.")
    probes = {
        f"{name}_{protocol}": (name, protocol)
        for name, one in evaluations(config).items()
        for protocol in one.protocols
    }
    names = ["status", "flops", *(f"flops_{part}" for part in PARTS)]
    names += ["teacher_steps", "steps", "loss", "target_rank", *probes, "seconds"]
    rows, failed = [], {}
    for cell in [*comparison.baselines(config), *comparison.all_cells(config)]:
        row: Row = {key: getattr(cell, key) for key in (*GROUP, "seed")} | dict.fromkeys(names)
        try:
            row |= _measured(cell, root, probes)
        except ConfigError as error:
            failed[cell.name] = str(error)
        if row["status"] != DONE:
            folders = [root / stage / cell.name for stage in STAGES]
            reasons = [ElementDirectory(folder).reason(FAILED) for folder in folders]
            for reason in filter(None, reasons):
                failed.setdefault(cell.name, reason)
            row["status"] = FAILED if cell.name in failed else "unfinished"
        rows.append(row)
    return rows, list(probes), failed


def _measured(cell: Cell, root: Path, probes: Mapping[str, tuple[str, str]]) -> Row:
    """Returns accuracies and cost of a run; nothing where it is not finished.

    Raises:
        ConfigError: Its cost does not compare.
    """
    folder = root / comparison.CELLS / cell.name
    if not (folder / comparison.PRODUCT).is_file():
        return {}
    reports = json.loads((folder / comparison.PRODUCT).read_text())
    cost = {"flops": 0} if cell.method == comparison.RANDOM else cost_of(RunDirectory(folder))
    found = {
        column: reports[name][protocol]["accuracy"] for column, (name, protocol) in probes.items()
    }
    return cost | found | {"status": DONE}


def main(folder: str) -> None:
    """Writes `results.csv`, `table.md` and the figures of a comparison.

    Args:
        folder: Of the comparison.
    """
    root = Path(folder)
    rows, columns, _ = outcome(root)
    write_text(root / "results.csv", as_csv(rows))
    paths = write_comparison(rows, columns, root / "table.md")
    print(*[root / "results.csv", *paths], sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
