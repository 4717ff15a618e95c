"""A claim about the encoders of a study, and what their numbers say of it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.dataclasses import dataclass

from salt_plugin.config.suggest import require_known
from salt_plugin.config.values import STRICT, Part
from salt_plugin.errors import ConfigError
from salt_plugin.files import write_csv, write_text
from salt_plugin.report.intervals import Interval, correlation_interval, mean_interval
from salt_plugin.run_directory import RunDirectory, recent_loss
from salt_plugin.studies.attempts import FINISHED

SUPPORTS, CONTRADICTS, OPEN = "supports", "contradicts", "does not separate"
CLAIM = "claim.txt"
COLUMNS = ("arm", "element", "seed", "accuracy")

# A loss predicts accuracy where it explains at least half of its variance.
PREDICTS = -(0.5**0.5)

_COMPARES = re.compile(r"(?P<one>\w+) (?P<sign>>=|>|=) (?P<other>\w+)")
_PREDICTS = re.compile(r"loss of (?P<stage>[\w-]+) (?P<how>predicts|does not predict) (?P<one>\w+)")

Row = Mapping[str, Any]


@dataclass(config=STRICT)
class Arm:
    """Encoders that are alike but for their seeds.

    Attributes:
        probes: Stages; the mean of their accuracies is what an encoder is worth.
        where: Values in sweeps that choose among the encoders, e.g. `{teacher.seed: 1}`.
    """

    probes: list[str]
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(config=STRICT)
class ClaimConfig:
    """A claim, as the statements that make it up.

    Attributes:
        says: In words.
        arms: By name.
        statements: `A > B`; `A >= B`: above, or below by less than `margin`; `A = B`: closer than
            `margin`; `loss of STAGE predicts A`, or `does not predict`. All have to hold.
        protocol: The accuracy that counts.
        margin: The largest difference in accuracy that is of no account.
    """

    says: str
    arms: dict[str, Arm]
    statements: list[str]
    protocol: str = "linear"
    margin: Part = 0.05

    def check(self, key: str, stages: Iterable[str]) -> None:
        """Checks that arms and statements name what there is.

        Args:
            key: Of the claim, for messages.
            stages: All that there are.

        Raises:
            ConfigError: They do not.
        """
        stages = list(stages)
        for name, arm in self.arms.items():
            for stage in arm.probes:
                require_known(stage, stages, f"{key}.arms.{name}.probes: no stage {stage!r}")
        for statement in self.statements:
            found = _parsed(statement)
            if not found:
                raise ConfigError(
                    f"{key}.statements: {statement!r}: expected A > B, A >= B, A = B, loss of "
                    "STAGE predicts A, or loss of STAGE does not predict A"
                )
            for part, known in (("one", self.arms), ("other", self.arms), ("stage", stages)):
                if part in found:
                    mistake = f"{key}.statements: {statement!r}: there is no {found[part]!r}"
                    require_known(found[part], known, mistake)


class Finding(NamedTuple):
    """What was found of a statement.

    Attributes:
        statement: As the claim has it.
        verdict: `supports`, `contradicts` or `does not separate`.
        effect: The difference in accuracy, or the correlation of loss and accuracy.
        low: The lower end of its 95 % interval.
        high: The upper end.
        n: Number of seeds, or of encoders whose losses are compared.
        seeds: Which, separated by spaces.
        r2: Of loss and accuracy.
        spearman: Likewise, their rank correlation.
    """

    statement: str
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    n: int
    seeds: str
    r2: float | None = None
    spearman: float | None = None


def values_of(claim: ClaimConfig, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns what the encoders of a claim are worth.

    Args:
        claim: The claim.
        rows: Of `results.csv`.

    Returns:
        A row for each encoder of each arm whose probes are all finished: `arm`, `element`, `seed`,
        `accuracy`, that of each probe by its stage, and `loss_of_STAGE` of losses that the claim is
        about.
    """
    asked = _stages_of_losses(claim)
    found = []
    for name, arm in claim.arms.items():
        probed: dict[str, dict[str, Row]] = {}
        for row in rows:
            chosen = all(_same(row.get(key), value) for key, value in arm.where.items())
            if row["stage"] in arm.probes and chosen and row.get(claim.protocol) is not None:
                probed.setdefault(row["element"], {})[row["stage"]] = row
        for element, of in probed.items():
            if of.keys() < {*arm.probes}:
                continue
            accuracies = {stage: float(of[stage][claim.protocol]) for stage in arm.probes}
            swept = _swept(of[arm.probes[0]])
            seeds = [value for key, value in swept.items() if key.endswith(".seed")]
            found.append(
                {"arm": name, "element": element, "seed": int(seeds[-1]) if seeds else None}
                | {"accuracy": statistics.fmean(accuracies.values()), **accuracies}
                | {f"loss_of_{stage}": _loss(rows, stage, swept) for stage in asked}
            )
    return found


def findings(claim: ClaimConfig, values: Sequence[Row]) -> list[Finding]:
    """Returns what values say of each statement.

    Differences are paired by seed; the values of an arm that share a seed are averaged first.

    Args:
        claim: The claim.
        values: As `values_of` gives them.
    """
    from salt_plugin.report.agreement import agreement

    found = []
    for statement in claim.statements:
        parsed = _parsed(statement)
        one = [row for row in values if row["arm"] == parsed["one"]]
        if "stage" in parsed:
            loss = f"loss_of_{parsed['stage']}"
            known = [row for row in one if row[loss] is not None]
            losses, accuracies = ([float(row[of]) for row in known] for of in (loss, "accuracy"))
            interval, fit = correlation_interval(losses, accuracies), agreement(losses, accuracies)
            region = (-inf, PREDICTS) if parsed["how"] == "predicts" else (PREDICTS, inf)
            seeds, more = {row["seed"] for row in known}, [fit.r2, fit.spearman]
        else:
            ours = _by_seed(one)
            theirs = _by_seed([row for row in values if row["arm"] == parsed["other"]])
            seeds, more = ours.keys() & theirs.keys(), []
            interval = mean_interval([ours[seed] - theirs[seed] for seed in seeds])
            margin = claim.margin
            region = {">": (0, inf), ">=": (-margin, inf), "=": (-margin, margin)}[parsed["sign"]]
        named = " ".join(map(str, sorted(seeds, key=_natural)))
        found.append(Finding(statement, _verdict(interval, region), *interval, named, *more))
    return found


def verdict_of(found: Sequence[Finding]) -> str:
    """Returns the verdict on a claim: all statements have to hold, so one against it decides."""
    verdicts = {one.verdict for one in found}
    return CONTRADICTS if CONTRADICTS in verdicts else OPEN if OPEN in verdicts else SUPPORTS


def claim_line(name: str, claim: ClaimConfig, found: Sequence[Finding]) -> str:
    """Returns the outcome in one line."""
    parts = []
    for one in found:
        what = f"r = {one.effect:+.3f}" if one.effect is not None else "nothing to compare"
        if one.effect is not None and "loss of" not in one.statement:
            what = f"{one.effect:+.3f}"
        between = f" [{one.low:+.3f}, {one.high:+.3f}]" if one.low is not None else ""
        fit = f", R2 {one.r2:.2f}, rank {one.spearman:+.2f}" if one.r2 is not None else ""
        unit = "encoders" if "loss of" in one.statement else "seeds"
        parts.append(f"{one.statement}: {what}{between}{fit}, {one.n} {unit}")
    return f"{name} {verdict_of(found)}: {claim.says}: {'; '.join(parts)}"


def write_claim(study: Path, folder: Path, claim: ClaimConfig, rows: Sequence[Row]) -> list[Path]:
    """Writes what a study says of a claim, and returns the files.

    Args:
        study: The folder of the study.
        folder: Of the report; the claim is called as its stage.
        claim: The claim.
        rows: Of `results.csv`.
    """
    from salt_plugin.report.claim_figure import draw_claim

    asked = _stages_of_losses(claim)
    values = values_of(claim, [_with_mean_loss(study, row, asked) for row in rows])
    found = findings(claim, values)
    line = claim_line(folder.parent.name, claim, found)
    paths = [folder / name for name in (CLAIM, "values.csv", "findings.csv")]
    figure = folder / "figures" / "claim.png"
    names = [*COLUMNS, *dict.fromkeys(key for row in values for key in row if key not in COLUMNS)]
    write_csv(paths[1], names, values)
    write_csv(paths[2], Finding._fields, [one._asdict() for one in found])
    draw_claim(figure, claim.says, values, [one._asdict() for one in found])
    write_text(paths[0], f"{line}\n")
    return [*paths, figure]


def _natural(seed: int | None) -> int:
    return -1 if seed is None else seed


def _parsed(statement: str) -> dict[str, str]:
    found = _COMPARES.fullmatch(statement) or _PREDICTS.fullmatch(statement)
    return found.groupdict() if found else {}


def _stages_of_losses(claim: ClaimConfig) -> list[str]:
    parsed = map(_parsed, claim.statements)
    return list(dict.fromkeys(one["stage"] for one in parsed if "stage" in one))


def _with_mean_loss(study: Path, row: Row, stages: Sequence[str]) -> Row:
    """Returns the row of an element with the mean loss of its last steps: that of one is noise."""
    if row["stage"] not in stages or row["status"] != FINISHED:
        return row
    run = RunDirectory(study / row["stage"] / row["element"])
    return {**row, "loss": recent_loss(run.result.metrics)}


def _verdict(interval: Interval, region: tuple[float, float]) -> str:
    """Returns whether an interval lies within the region of a claim, beside it, or on its edge."""
    if interval.low is None or interval.high is None:
        return OPEN
    low, high = region
    if low < interval.low and interval.high < high:
        return SUPPORTS
    return CONTRADICTS if interval.high < low or interval.low > high else OPEN


def _by_seed(rows: Sequence[Row]) -> dict[Any, float]:
    together: dict[Any, list[float]] = {}
    for row in rows:
        together.setdefault(row["seed"], []).append(row["accuracy"])
    return {seed: statistics.fmean(values) for seed, values in together.items()}


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
