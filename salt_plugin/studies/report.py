"""What came out of a study: a row for each element, as CSV and Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.errors import ConfigError
from salt_plugin.files import write_text
from salt_plugin.report.comparison_table import markdown
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies.attempts import FINISHED
from salt_plugin.studies.elements import Element
from salt_plugin.studies.outcome import DONE, Row, as_csv, cost_of, write_comparison
from salt_plugin.studies.pipeline import PROBE, TRAIN
from salt_plugin.studies.study import Study

COLUMNS = ("stage", "element", "status", "step", "loss", "flops")

# What separates the lines of the figures; other keys would be taken for further seeds.
COMPARED = {"method", "method.encoder", "compute.budget", "compute.teacher_share", "seed"}


def main(arguments: list[str]) -> None:
    """Writes `results.csv` and `table.md`; of runs with budgets also `compared.md` and figures.

    Args:
        arguments: The folder of the study, and the one to write to.
    """
    study, folder = Study(Path(arguments[0])), Path(arguments[1])
    elements = study.elements()
    found = {
        one.id: _accuracies(study.element(one).output)
        for one in elements
        if one.arguments[0] == PROBE and study.finished(one)
    }
    rows = []
    for one in elements:
        if one.arguments[0] in (TRAIN, PROBE):
            status = FINISHED if study.finished(one) else "missing"
            own = {f"{one.stage}.{key}": value for key, value in one.values[one.stage].items()}
            numbers = study.element(one).progress() if one.arguments[0] == TRAIN else {}
            row = {"stage": one.stage, "element": one.name, "status": status}
            rows.append(dict.fromkeys(COLUMNS) | row | own | numbers | found.get(one.id, {}))
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_text(folder / "results.csv", as_csv(rows))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    write_text(folder / "table.md", markdown(names, cells))
    paths = [folder / "table.md"]
    compared = _compared(study, elements, found)
    columns = list(dict.fromkeys(name for row in compared for name in row["accuracies"]))
    # A run without one of its probes would have no place in a panel.
    whole = [row | row["accuracies"] for row in compared if len(row["accuracies"]) == len(columns)]
    if whole and columns:
        paths += write_comparison(whole, columns, folder / "compared.md")
    print(*paths, sep="\n")


def _accuracies(output: Path) -> dict[str, float]:
    """Returns the accuracy of each protocol that a probe has printed as JSON, last."""
    try:
        found = json.loads(output.read_text().splitlines()[-1])
    except (OSError, IndexError, ValueError):
        return {}
    reports = {name: one for name, one in found.items() if isinstance(one, dict)}
    return {name: one["accuracy"] for name, one in reports.items() if "accuracy" in one}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _compared(
    study: Study, elements: Sequence[Element], found: Mapping[str, Mapping[str, float]]
) -> list[Row]:
    """Returns a row for each run that has a budget and was probed, where its sweep compares."""
    rows = []
    several = len({one.stage for one in elements if one.arguments[0] == PROBE}) > 1
    for one in elements:
        probes = [each for each in elements if each.parent == one.id and each.id in found]
        # Of what it is based on, only the seed may differ.
        free = {stage: COMPARED if stage == one.stage else {"seed"} for stage in one.values}
        compares = all(values.keys() <= free[stage] for stage, values in one.values.items())
        budgeted = any(argument.startswith("compute.budget=") for argument in one.arguments)
        if not (budgeted and probes and compares and study.finished(one)):
            continue
        run = RunDirectory(study.root / one.id)
        config = run.stored_config()
        method, compute = config["method"], config["compute"]
        shares = method.get("teacher") is not None and method["teacher"]["path"] is None
        row: Row = {
            "method": method["name"],
            "encoder": method["encoder"],
            "teacher_share": compute["teacher_share"] if shares else None,
            "budget": compute["budget"],
            "status": DONE,
            "accuracies": {
                f"{each.stage}_{name}" if several else name: value
                for each in probes
                for name, value in found[each.id].items()
            },
        }
        try:
            rows.append(row | cost_of(run))
        except ConfigError:
            continue  # the FLOPs of its teacher are unknown
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
