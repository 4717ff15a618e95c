"""What came out of the runs of a comparison, a row for each encoder."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.config import read_yaml
from salt_plugin.config.arms import RANDOM
from salt_plugin.config.compare import listed
from salt_plugin.errors import ConfigError
from salt_plugin.report.paired import ENDPOINT
from salt_plugin.run_directory import RunDirectory, recent_loss
from salt_plugin.stage_directory import KINDS
from salt_plugin.studies.attempts import FAILED, ElementDirectory
from salt_plugin.studies.comparison import BASELINES, CELLS, PROBES, PRODUCT
from salt_plugin.studies.study import COMPARISON, Study

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
GROUP = ("arm", "method", "kind", "encoder", "teacher_share", "budget", "trial")
COST = ("flops", *(f"flops_{part}" for part in PARTS), "teacher_steps", "steps", "loss")

Row = dict[str, Any]


class Outcome(NamedTuple):
    """What came out of a comparison.

    Attributes:
        rows: Of baselines and of the encoders of runs; those that are not done have no numbers.
        columns: The names of the accuracies, `EVALUATION_PROTOCOL` and, last, `endpoint`, where the
            comparison has one.
        failed: Why runs are not done, by their names.
        chosen_by: The accuracies that choose among trials.
    """

    rows: list[Row]
    columns: list[str]
    failed: dict[str, str]
    chosen_by: list[str]


def comparison_rows(study: Study) -> Outcome:
    """Returns what came out of a comparison, as far as it is done."""
    elements, settings = study.elements(), read_yaml(study.root / COMPARISON)
    found: list[Row] = []
    columns: dict[str, tuple[str, str]] = {}
    failed: dict[str, str] = {}
    for one in [each for stage in (BASELINES, PROBES) for each in elements if each.stage == stage]:
        row: Row = dict(one.values[CELLS])
        row["trial"] = " ".join(row["trial"]) or None
        run = RunDirectory(study.root / CELLS / one.name)
        try:
            if (run.root / PRODUCT).is_file():
                row |= {"flops": 0} if row["method"] == RANDOM else cost_of(run)
                for kind, file in _products(run.root / PRODUCT).items():
                    accuracies = _evaluated(file)
                    columns |= {"_".join(name): name for name in accuracies}
                    named = {"_".join(name): value for name, value in accuracies.items()}
                    found.append(row | named | {"kind": kind, "status": DONE})
                continue
        except ConfigError as error:
            failed[one.name] = str(error)
        folders = [study.root / stage / one.name for stage in (CELLS, PROBES, BASELINES)]
        for reason in (ElementDirectory(folder).reason(FAILED) for folder in folders):
            if reason:
                failed.setdefault(one.name, reason)
        found.append(row | {"status": FAILED if one.name in failed else "unfinished"})
    asked, endpoint = (
        [name for name, (of, by) in columns.items() if {of, f"{of}.{by}"} & {*listed(names)}]
        for names in (settings.get("choose"), settings.get(ENDPOINT))
    )
    whole = _whole_seeds(found)
    for row in found:
        row["whole"] = bool(row["trial"]) or row["seed"] in whole
    choose_kinds(found, asked)
    shown = list(columns)
    if endpoint:
        shown.append(ENDPOINT)
        for row in found:
            if row["status"] == DONE:
                row[ENDPOINT] = statistics.fmean(row[name] for name in endpoint)
    names = [*GROUP, "chosen", "seed", "whole", "status", *COST, "target_rank", *shown, "seconds"]
    rows = [{name: row.get(name) for name in names} for row in found]
    return Outcome(rows, shown, failed, asked or endpoint)


def _products(product: Path) -> dict[str | None, Path]:
    """Returns what was found of the encoders of a run by their kind, that of the result first."""
    for own, other in (KINDS, KINDS[::-1]):
        file = product.with_stem(f"{product.stem}-{other}")
        if file.is_file():
            return {own: product, other: file}
    return {None: product}


def _evaluated(file: Path) -> dict[tuple[str, str], float]:
    """Returns accuracies by evaluation and protocol."""
    return {
        (name, protocol): value
        for name, reports in json.loads(file.read_text()).items()
        for protocol, value in accuracies_of(reports).items()
    }


def choose_kinds(rows: Sequence[Row], asked: Sequence[str]) -> None:
    """Marks the rows of the kind of encoder that each arm is judged by, at each budget and trial.

    It is the one with the highest mean of the accuracies that are asked over the runs of whole
    seeds, or while there are none over all; where none are asked, that of the result.
    """

    def judged(row: Row) -> tuple[Any, ...]:
        return tuple(row[key] for key in GROUP if key != "kind")

    done = [row for row in rows if row["status"] == DONE]
    values: dict[tuple[Any, ...], dict[str | None, list[float]]] = {}
    for row in [row for row in done if row["whole"]] or done:
        kinds = values.setdefault(judged(row), {})
        kinds.setdefault(row["kind"], []).extend(row[column] for column in asked)
    chosen = {}
    for key, kinds in values.items():
        means = {kind: statistics.fmean(found) if found else 0.0 for kind, found in kinds.items()}
        chosen[key] = max(means, key=means.__getitem__)  # of equal ones the first
    for row in done:
        row["chosen"] = row["kind"] == chosen.get(judged(row), row["kind"])


def _whole_seeds(rows: Sequence[Row]) -> set[int]:
    """Returns the seeds of which the runs of all arms and budgets are done."""
    runs = [row for row in rows if row["method"] != RANDOM]
    missing = {row["seed"] for row in runs if row["status"] != DONE}
    return {row["seed"] for row in runs} - missing


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


def accuracies_of(reports: Mapping[str, Any]) -> dict[str, float]:
    """Returns the accuracy of each protocol in what an evaluation has found."""
    found = {name: one for name, one in reports.items() if isinstance(one, dict)}
    return {name: one["accuracy"] for name, one in found.items() if "accuracy" in one}
