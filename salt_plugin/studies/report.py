"""What came out of a study: a row for each element, as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from salt_plugin.files import write_text
from salt_plugin.studies.attempts import FINISHED
from salt_plugin.studies.compared import leave_comparison
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PROBE, TRAIN
from salt_plugin.studies.study import Study

COLUMNS = ("stage", "element", "status", "step", "loss", "flops")


def main(arguments: list[str]) -> None:
    """Writes `results.csv` and `table.md`; of runs with budgets also a comparison and its figures.

    Args:
        arguments: The folder of the study, and the one to write to.
    """
    study, folder = Study(Path(arguments[0])), Path(arguments[1])
    elements = study.elements()
    rows = [_row(study, one) for one in elements if one.arguments[0] in (TRAIN, PROBE)]
    names = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", text.getvalue())
    write_text(folder / "table.md", _markdown(names, rows))
    probes = [one for one in elements if one.arguments[0] == PROBE and study.finished(one)]
    found = {one.id: _accuracies(study.element(one).output) for one in probes}
    for path in [folder / "table.md", *leave_comparison(study, elements, found, folder)]:
        print(path)


def _row(study: Study, element: Element) -> dict[str, Any]:
    files = study.element(element)
    own = {f"{element.stage}.{key}": value for key, value in element.values[element.stage].items()}
    row: dict[str, Any] = {
        "stage": element.stage,
        "element": element.name,
        "status": FINISHED if study.finished(element) else "missing",
        **own,
    }
    if element.arguments[0] == TRAIN:
        return row | files.progress()
    return row | _accuracies(files.output)


def _accuracies(output: Path) -> dict[str, float]:
    """Returns the accuracy of each protocol that a probe has printed as JSON, last."""
    lines = output.read_text().splitlines() if output.is_file() else []
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    protocols = found.items() if isinstance(found, dict) else ()
    return {
        name: one["accuracy"]
        for name, one in protocols
        if isinstance(one, dict) and "accuracy" in one
    }


def _markdown(names: list[str], rows: list[dict[str, Any]]) -> str:
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])
