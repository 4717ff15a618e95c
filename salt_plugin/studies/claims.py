"""The values that a claim is held to, from the rows of a study or a comparison, and its files."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.config.claim import ClaimConfig
from salt_plugin.files import write_csv, write_text
from salt_plugin.report.paired import ENDPOINT
from salt_plugin.report.statements import Finding, claim_line, findings
from salt_plugin.run_directory import RunDirectory, read_metrics, recent_loss
from salt_plugin.studies.attempts import FINISHED

CLAIM = "claim.txt"
COLUMNS = ("arm", "element", "seed", "accuracy")

Row = Mapping[str, Any]


def compared_rows(file: str) -> list[dict[str, Any]]:
    """Returns the rows of a `results.csv` of `salt compare` of whole seeds, with an endpoint."""
    with open(file, newline="") as opened:
        return [row for row in csv.DictReader(opened) if row[ENDPOINT] and row["whole"] == "True"]


def values_of(claim: ClaimConfig, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns what the encoders of a claim are worth.

    Args:
        claim: The claim.
        rows: Of `results.csv`, of the study or of the comparison that it names.

    Returns:
        A row for each encoder of each arm whose probes are all finished: `arm`, `element`, `seed`,
        `accuracy`, that of each probe by its stage, and `loss_of_STAGE` of losses that the claim is
        about.
    """
    found: list[dict[str, Any]] = []
    for name, arm in claim.arms.items():
        chosen = [
            row for row in rows if all(_same(row.get(key), it) for key, it in arm.where.items())
        ]
        if claim.rows is None:
            encoders = _probed(claim, arm.probes, chosen, rows)
        else:
            encoders = [_compared(row) for row in chosen]
        found += [{"arm": name} | one for one in encoders]
    return found


def write_claim(study: Path, folder: Path, claim: ClaimConfig, rows: Sequence[Row]) -> list[Path]:
    """Writes what a study says of a claim, and returns the files.

    Args:
        study: The folder of the study.
        folder: Of the report; the claim is called as its stage.
        claim: The claim.
        rows: As for `values_of`.
    """
    from salt_plugin.report.claim_figure import draw_claim

    values = values_of(claim, [_with_mean_loss(study, row, claim.losses()) for row in rows])
    found = findings(claim.statements, claim.margin, values)
    paths = [folder / name for name in (CLAIM, "values.csv", "findings.csv")]
    figure = folder / "figures" / "claim.png"
    names = [*COLUMNS, *dict.fromkeys(key for row in values for key in row if key not in COLUMNS)]
    write_csv(paths[1], names, values)
    write_csv(paths[2], Finding._fields, [one._asdict() for one in found])
    draw_claim(figure, claim.says, values, [one._asdict() for one in found])
    write_text(paths[0], f"{claim_line(folder.parent.name, claim.says, found)}\n")
    return [*paths, figure]


def _compared(row: Row) -> dict[str, Any]:
    """Returns what a row of a comparison says of its encoder."""
    names = (row["arm"], row.get("kind"), row.get("encoder"), f"s{row['seed']}")
    element = "-".join(name for name in names if name)
    return {"element": element, "seed": int(row["seed"]), "accuracy": float(row[ENDPOINT])}


def _probed(
    claim: ClaimConfig, probes: Sequence[str], chosen: Sequence[Row], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Returns what the encoders are worth whose probes are all finished.

    Args:
        claim: The claim.
        probes: Stages.
        chosen: Rows of encoders of an arm.
        rows: All, for the losses.
    """
    probed: dict[str, dict[str, Row]] = {}
    for row in chosen:
        if row["stage"] in probes and row.get(claim.protocol) is not None:
            probed.setdefault(row["element"], {})[row["stage"]] = row
    found = []
    for element, of in probed.items():
        if of.keys() < {*probes}:
            continue
        accuracies = {stage: float(of[stage][claim.protocol]) for stage in probes}
        swept = _swept(of[probes[0]])
        seeds = [value for key, value in swept.items() if key.endswith(".seed")]
        found.append(
            {"element": element, "seed": int(seeds[-1]) if seeds else None}
            | {"accuracy": statistics.fmean(accuracies.values()), **accuracies}
            | {f"loss_of_{stage}": _loss(rows, stage, swept) for stage in claim.losses()}
        )
    return found


def _with_mean_loss(study: Path, row: Row, stages: Sequence[str]) -> Row:
    """Returns the row of an element with the mean loss of its last steps: that of one is noise."""
    if row.get("stage") not in stages or row["status"] != FINISHED:
        return row
    run = RunDirectory(study / row["stage"] / row["element"])
    # A tenth of a run of any length: of a short one, a hundred steps hold the fall from its start.
    metrics = run.result.metrics
    return {**row, "loss": recent_loss(metrics, max(10, len(read_metrics(metrics)) // 10))}


def _swept(row: Row) -> dict[str, Any]:
    """Returns the places of an element in the sweeps of its stage and those before it."""
    return {key: value for key, value in row.items() if "." in key and value is not None}


def _loss(rows: Sequence[Row], stage: str, swept: Mapping[str, Any]) -> float | None:
    """Returns the loss of the element of a stage that a probed encoder is, or is based on."""
    for row in rows:
        if row["stage"] == stage and _swept(row).items() <= swept.items():
            return None if row.get("loss") is None else float(row["loss"])
    return None


def _same(found: Any, wanted: Any) -> bool:
    """Whether two values are the same text or number; sweeps write numbers in their own way."""
    try:
        return float(found) == float(wanted)
    except (TypeError, ValueError):
        return str(found) == str(wanted)
