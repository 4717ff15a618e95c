"""Runs that have budgets, as `salt compare` shows them: methods at matched FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.errors import ConfigError
from salt_plugin.files import write_text
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies.elements import Element
from salt_plugin.studies.pipeline import PROBE, TRAIN
from salt_plugin.studies.study import Study

# What tells the lines of the figures apart; other keys would be taken for further seeds.
KEYS = {"method", "method.encoder", "compute.budget", "compute.teacher_share", "seed"}

Row = dict[str, Any]


def leave_comparison(
    study: Study,
    elements: Sequence[Element],
    accuracies: Mapping[str, Mapping[str, float]],
    folder: Path,
) -> list[Path]:
    """Writes `compared.md` and the figures of runs that have budgets and were probed.

    Args:
        study: The study.
        elements: All.
        accuracies: What each probe has found, by its id and protocol.
        folder: Where to.

    Returns:
        The files; none where a sweep has keys beside `KEYS`, or nothing has a budget.
    """
    rows = _rows(study, elements, accuracies)
    columns = list(dict.fromkeys(name for row in rows for name in row["accuracies"]))
    # A run without one of its probes would have no place in a panel.
    rows = [row | row["accuracies"] for row in rows if row["accuracies"].keys() >= set(columns)]
    if not rows or not columns:
        return []
    from salt_plugin.report.compare import markdown_table
    from salt_plugin.studies.figures import draw
    from salt_plugin.studies.results import groups

    found = groups(rows, columns)
    table = folder / "compared.md"
    write_text(table, markdown_table(found, columns))
    return [table, *draw(rows, found, columns, folder / "figures")]


def _rows(
    study: Study, elements: Sequence[Element], accuracies: Mapping[str, Mapping[str, float]]
) -> list[Row]:
    from salt_plugin.studies.results import DONE, spent

    rows = []
    for one in elements:
        budgeted = any(argument.startswith("compute.budget=") for argument in one.arguments)
        if one.arguments[0] != TRAIN or not budgeted or not study.finished(one):
            continue
        probes = [each for each in elements if each.parent == one.id and each.id in accuracies]
        swept = {key for values in one.values.values() for key in values}
        inherited = {key for stage in one.values if stage != one.stage for key in one.values[stage]}
        if not probes or not swept <= KEYS or not inherited <= {"seed"}:
            continue
        run = RunDirectory(study.root / one.id)
        try:
            row = _group(run.stored_config()) | spent(run) | {"status": DONE}
        except ConfigError:
            continue  # of a teacher whose FLOPs nobody knows
        several = len({each.stage for each in elements if each.arguments[0] == PROBE}) > 1
        row["accuracies"] = {
            f"{each.stage}_{name}" if several else name: value
            for each in probes
            for name, value in accuracies[each.id].items()
        }
        rows.append(row)
    return rows


def _group(config: Mapping[str, Any]) -> Row:
    """Returns what the seeds of a method have in common."""
    method, compute = config["method"], config["compute"]
    shares = method.get("teacher") is not None and method["teacher"]["path"] is None
    return {
        "method": method["name"],
        "encoder": method["encoder"],
        "teacher_share": compute["teacher_share"] if shares else None,
        "budget": compute["budget"],
    }
