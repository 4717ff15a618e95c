"""What came out of a study: a row for each element or run, means over seeds, figures."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt_plugin.errors import ConfigError
from salt_plugin.files import write_csv, write_text
from salt_plugin.report.comparison_table import markdown, markdown_table
from salt_plugin.run_directory import RunDirectory, recent_loss
from salt_plugin.studies.attempts import FAILED, FINISHED, ElementDirectory
from salt_plugin.studies.comparison import BASELINES, CELLS, PROBES, PRODUCT, RANDOM
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PROBE, TRAIN
from salt_plugin.studies.study import Study

DONE = "done"
PARTS = (
    "teacher_training",
    "initialisation",
    "continued",
    "teacher_forward",
    "student",
    "predictor",
    "decoder",
    "projector",
    "ema",
)
GROUP = ("method", "encoder", "teacher_share", "budget")
COST = ("flops", *(f"flops_{part}" for part in PARTS), "teacher_steps", "steps", "loss")

# What separates the lines of the figures; other keys would be taken for further seeds.
COMPARED = {"method", "method.encoder", "compute.budget", "compute.teacher_share", "seed"}

Row = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Writes `results.csv`, `table.md` and, where runs compare, means over seeds and figures.

    Args:
        arguments: The folder of a comparison; or that of a study, and the one to write to.
    """
    study, folder = Study(Path(arguments[0])), Path(arguments[-1])
    if len(arguments) == 1:
        rows, columns, _ = comparison_rows(study)
        write_csv(folder / "results.csv", list(rows[0]), rows)
        paths = [folder / "results.csv", *_write_means(rows, columns, folder / "table.md")]
    else:
        paths = _write_study(study, folder)
    print(*paths, sep="\n")


def comparison_rows(study: Study) -> tuple[list[Row], list[str], dict[str, str]]:
    """Returns what came out of a comparison.

    Returns:
        Rows of baselines and runs, of which those that are not done have no numbers; the names of
        the accuracies, `EVALUATION_PROTOCOL`; why runs are not done, by their names.
    """
    elements = study.elements()
    found: list[Row] = []
    columns: dict[str, None] = {}
    failed: dict[str, str] = {}
    for one in [each for stage in (BASELINES, PROBES) for each in elements if each.stage == stage]:
        row: Row = dict(one.values[CELLS])
        run = RunDirectory(study.root / CELLS / one.name)
        try:
            if (run.root / PRODUCT).is_file():
                evaluations = json.loads((run.root / PRODUCT).read_text())
                accuracies = {
                    f"{name}_{protocol}": value
                    for name, reports in evaluations.items()
                    for protocol, value in _accuracies(reports).items()
                }
                columns |= dict.fromkeys(accuracies)
                cost = {"flops": 0} if row["method"] == RANDOM else cost_of(run)
                row |= accuracies | cost | {"status": DONE}
        except ConfigError as error:
            failed[one.name] = str(error)
        if "status" not in row:
            folders = [study.root / stage / one.name for stage in (CELLS, PROBES, BASELINES)]
            for reason in (ElementDirectory(folder).reason(FAILED) for folder in folders):
                if reason:
                    failed.setdefault(one.name, reason)
            row["status"] = FAILED if one.name in failed else "unfinished"
        found.append(row)
    names = [*GROUP, "seed", "status", *COST, "target_rank", *columns, "seconds"]
    return [{name: row.get(name) for name in names} for row in found], list(columns), failed


def cost_of(run: RunDirectory) -> Row:
    """Returns what a finished run has cost: FLOPs in all and by part, steps, loss, seconds.

    Raises:
        ConfigError: Its FLOPs are unknown.
    """
    summary = json.loads(run.summary.read_text())
    bill = summary["bill"]
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


def _write_means(rows: Sequence[Row], columns: Sequence[str], table: Path) -> list[Path]:
    """Writes the table of runs that are compared, and `figures/` beside it; returns the files."""
    from salt_plugin.report.comparison_figures import draw_comparison

    found = groups(rows, columns)
    write_text(table, markdown_table(found, columns))
    done = [row for row in rows if row["status"] == DONE]
    return [table, *draw_comparison(table.parent / "figures", done, found, columns)]


def _write_study(study: Study, folder: Path) -> list[Path]:
    """Writes a row for each element, and of runs with budgets `compared.md` and figures."""
    elements = study.elements()
    found = {
        one.id: _printed(study.element(one).output)
        for one in elements
        if one.arguments[0] == PROBE and study.finished(one)
    }
    rows: list[Row] = []
    for one in elements:
        if one.arguments[0] in (TRAIN, PROBE):
            status = FINISHED if study.finished(one) else "missing"
            row: Row = {"stage": one.stage, "element": one.name, "status": status}
            row |= study.element(one).progress()
            for stage, values in one.values.items():
                row |= {f"{stage}.{key}": value for key, value in values.items()}
            rows.append(row | found.get(one.id, {}))
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(folder / "results.csv", names, rows)
    write_text(folder / "table.md", markdown(names, [map(row.get, names) for row in rows]))
    runs, columns = _compared(study, elements, found)
    means = _write_means(runs, columns, folder / "compared.md") if runs else []
    return [folder / "table.md", *means]


def _compared(
    study: Study, elements: Sequence[Element], found: Mapping[str, Mapping[str, float]]
) -> tuple[list[Row], list[str]]:
    """Returns the probed runs of a study that have a budget and compare, and their accuracies."""
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for one in elements:
        probes = [each for each in elements if each.parent == one.id and each.id in found]
        accuracies = {f"{of.stage}_{key}": it for of in probes for key, it in found[of.id].items()}
        # Of what it is based on, only the seed may differ.
        free = {stage: COMPARED if stage == one.stage else {"seed"} for stage in one.values}
        if not (accuracies and any(each.startswith("compute.budget=") for each in one.arguments)):
            continue
        if any(keys.keys() - free[of] for of, keys in one.values.items()):
            continue
        run = RunDirectory(study.root / one.id)
        config = run.stored_config()
        method, compute = config["method"], config["compute"]
        shares = method.get("teacher") is not None and method["teacher"]["path"] is None
        row = {
            "method": method["name"],
            "encoder": method["encoder"],
            "teacher_share": compute["teacher_share"] if shares else None,
            "budget": compute["budget"],
            "status": DONE,
        }
        with suppress(ConfigError):  # the FLOPs of its teacher are unknown
            rows.append(row | cost_of(run) | accuracies)
            columns |= dict.fromkeys(accuracies)
    # A run without one of its probes would have no place in a panel.
    return [row for row in rows if columns.keys() <= row.keys()], list(columns)


def _printed(output: Path) -> dict[str, float]:
    """Returns the accuracy of each protocol that a probe has printed as JSON, last."""
    try:
        return _accuracies(json.loads(output.read_text().splitlines()[-1]))
    except (OSError, IndexError, ValueError):
        return {}


def _accuracies(reports: Mapping[str, Any]) -> dict[str, float]:
    """Returns the accuracy of each protocol in what an evaluation has found."""
    found = {name: one for name, one in reports.items() if isinstance(one, dict)}
    return {name: one["accuracy"] for name, one in found.items() if "accuracy" in one}


if __name__ == "__main__":
    main(sys.argv[1:])
