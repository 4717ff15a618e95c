"""What came out of a study: a row for each element or run, means over seeds, figures."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt_plugin.config import read_yaml
from salt_plugin.errors import ConfigError
from salt_plugin.files import write_csv, write_text
from salt_plugin.report.comparison_table import markdown, markdown_table
from salt_plugin.report.paired import (
    ENDPOINT,
    best_table,
    best_trials,
    paired_rows,
    paired_table,
)
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies.attempts import FINISHED
from salt_plugin.studies.claims import write_claim
from salt_plugin.studies.elements import Element, reported
from salt_plugin.studies.pipeline import PROBE, TRAIN
from salt_plugin.studies.rows import (
    DONE,
    GROUP,
    PARTS,
    Outcome,
    Row,
    accuracies_of,
    comparison_rows,
    cost_of,
)
from salt_plugin.studies.study import COMPARISON, Study

# What separates the lines of the figures; other keys would be taken for further seeds.
COMPARED = {"method", "method.encoder", "compute.budget", "compute.teacher_share", "seed"}


def main(arguments: list[str]) -> None:
    """Writes `results.csv`, `table.md` and, where runs compare, means over seeds and figures.

    Args:
        arguments: The folder of a comparison; or that of a study, and the one to write to.
    """
    study, folder = Study(Path(arguments[0])), Path(arguments[-1])
    if len(arguments) == 1:
        outcome = write_rows(study)
        found, said = conclusions(study, outcome)
        table = folder / "table.md"
        paths = [folder / "results.csv", *_write_means(outcome.rows, outcome.columns, table, said)]
        if found["paired"]:
            paths.append(folder / "paired.csv")
            write_csv(paths[-1], list(found["paired"][0]), found["paired"])
    else:
        paths = _write_study(study, folder)
    print(*paths, sep="\n")


def write_rows(study: Study) -> Outcome:
    """Writes `results.csv` of a comparison, as far as it is done; returns what came out."""
    outcome = comparison_rows(study)
    write_csv(study.root / "results.csv", list(outcome.rows[0]), outcome.rows)
    return outcome


def conclusions(study: Study, outcome: Outcome) -> tuple[dict[str, list[Row]], str]:
    """Returns what separates the arms of a comparison.

    Returns:
        `groups`, their means; `paired`, differences of their endpoints; `best`, the best trials.
        And the last two as Markdown.
    """
    settings = read_yaml(study.root / COMPARISON)
    rows, columns, _, chosen_by = outcome
    trials, margin = settings["trials"], settings["margin"]
    found: dict[str, list[Row]] = {"groups": groups(rows, columns), "paired": [], "best": []}
    if trials:
        found["best"] = best_trials(found["groups"], chosen_by, trials)
    elif ENDPOINT in columns:
        reference = settings["reference"] or settings["methods"][0]
        found["paired"] = paired_rows(rows, reference, margin)
    return found, paired_table(found["paired"], margin) + best_table(found["best"], chosen_by)


def groups(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """Returns mean and standard deviation over seeds.

    Args:
        rows: Of runs; those that are not done are left out.
        columns: The accuracies.

    Returns:
        For each arm, kind of encoder, size, teacher share, budget and trial in the order of the
        rows: these keys, whether the kind is `chosen`, `n`, mean `flops`, mean FLOPs by part under
        `parts`, and the mean of each accuracy and its sample standard deviation under `COLUMN_sd`,
        None for a single seed.
    """
    together: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == DONE:
            together.setdefault(tuple(row.get(key) for key in GROUP), []).append(row)
    found = []
    for key, seeds in together.items():
        group: Row = dict(zip(GROUP, key, strict=True)) | {"n": len(seeds)}
        group["chosen"] = seeds[0].get("chosen", True)
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


def _write_means(
    rows: Sequence[Row], columns: Sequence[str], table: Path, below: str = ""
) -> list[Path]:
    """Writes the table of runs that are compared, and `figures/` beside it; returns the files."""
    from salt_plugin.report.comparison_figures import draw_comparison

    found = groups(rows, columns)
    write_text(table, markdown_table(found, columns) + below)
    done = [row for row in rows if row["status"] == DONE and row.get("chosen", True)]
    drawn = [group for group in found if group["chosen"]]
    return [table, *draw_comparison(table.parent / "figures", done, drawn, columns)]


def _write_study(study: Study, folder: Path) -> list[Path]:
    """Writes a row for each element, and of runs with budgets `compared.md` and figures."""
    config, report = study.pipeline(), folder.parent.name
    about = reported(config, study.root, report)
    elements = [one for one in study.elements() if one.id in about]
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
    claim = config.stages[report].claim
    verdict = write_claim(study.root, folder, claim, rows) if claim else []
    return [folder / "table.md", *means, *verdict]


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
            "arm": method["name"],
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
        return accuracies_of(json.loads(output.read_text().splitlines()[-1]))
    except (OSError, IndexError, ValueError):
        return {}


if __name__ == "__main__":
    main(sys.argv[1:])
