"""What values of encoders say of statements such as `student > teacher`."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from salt_plugin.report.intervals import Interval, correlation_interval, mean_interval

NOTHING = "nothing to compare"
SUPPORTS, CONTRADICTS, OPEN = "supports", "contradicts", "does not separate"

# A loss predicts accuracy where it explains at least half of its variance.
PREDICTS = -(0.5**0.5)

_COMPARES = re.compile(r"(?P<one>\w+) (?P<sign>>=|>|=) (?P<other>\w+)")
_PREDICTS = re.compile(r"loss of (?P<stage>[\w-]+) (?P<how>predicts|does not predict) (?P<one>\w+)")

Row = Mapping[str, Any]


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


def parsed(statement: str) -> dict[str, str]:
    """Returns the parts of a statement: `one`, `sign` and `other`, or `one`, `how` and `stage`.

    Nothing where it is none.
    """
    found = _COMPARES.fullmatch(statement) or _PREDICTS.fullmatch(statement)
    return found.groupdict() if found else {}


def findings(statements: Sequence[str], margin: float, values: Sequence[Row]) -> list[Finding]:
    """Returns what values say of each statement.

    Differences are paired by seed; the values of an arm that share a seed are averaged first.

    Args:
        statements: Of a claim (`config.claim.ClaimConfig`).
        margin: The largest difference that is of no account.
        values: A row for each encoder: `arm`, `seed`, `accuracy`, and `loss_of_STAGE` of losses
            that statements are about.
    """
    from salt_plugin.report.agreement import agreement

    found = []
    for statement in statements:
        parts = parsed(statement)
        one = [row for row in values if row["arm"] == parts["one"]]
        if "stage" in parts:
            loss = f"loss_of_{parts['stage']}"
            known = [row for row in one if row[loss] is not None]
            losses, accuracies = ([float(row[of]) for row in known] for of in (loss, "accuracy"))
            interval, fit = correlation_interval(losses, accuracies), agreement(losses, accuracies)
            region = (-inf, PREDICTS) if parts["how"] == "predicts" else (PREDICTS, -PREDICTS)
            seeds, more = {row["seed"] for row in known}, [fit.r2, fit.spearman]
        else:
            ours = _by_seed(one)
            theirs = _by_seed([row for row in values if row["arm"] == parts["other"]])
            seeds, more = ours.keys() & theirs.keys(), []
            interval = mean_interval([ours[seed] - theirs[seed] for seed in seeds])
            region = {">": (0, inf), ">=": (-margin, inf), "=": (-margin, margin)}[parts["sign"]]
        named = " ".join(map(str, sorted(seeds, key=_natural)))
        found.append(Finding(statement, _verdict(interval, region), *interval, named, *more))
    return found


def verdict_of(found: Sequence[Finding]) -> str:
    """Returns the verdict on a claim: all statements have to hold, so one against it decides."""
    verdicts = {one.verdict for one in found}
    return CONTRADICTS if CONTRADICTS in verdicts else OPEN if OPEN in verdicts else SUPPORTS


def claim_line(name: str, says: str, found: Sequence[Finding]) -> str:
    """Returns the outcome of a claim in one line."""
    parts = []
    for one in found:
        of_loss = "loss of" in one.statement
        what = f"{'r = ' * of_loss}{one.effect:+.3f}" if one.effect is not None else NOTHING
        between = f" [{one.low:+.3f}, {one.high:+.3f}]" if one.low is not None else ""
        fit = f", R2 {one.r2:.2f}, rank {one.spearman:+.2f}" if one.r2 is not None else ""
        unit = "encoders" if of_loss else "seeds"
        parts.append(f"{one.statement}: {what}{between}{fit}, {one.n} {unit}")
    return f"{name} {verdict_of(found)}: {says}: {'; '.join(parts)}"


def _natural(seed: int | None) -> int:
    return -1 if seed is None else seed


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
