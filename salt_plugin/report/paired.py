"""What separates the arms of a comparison: differences paired by seed, and the best trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from salt_plugin.report.comparison_table import budget, label, markdown

ENDPOINT = "endpoint"
CONFIDENCE = 0.95
ABOVE, BELOW, WITHIN, NOT_SEPARATED = "above", "below", "within the margin", "not separated"

Rows = Sequence[Mapping[str, Any]]


class Paired(NamedTuple):
    """Differences of pairs.

    Attributes:
        n: Number of pairs.
        difference: Their mean.
        low: Lower end of the 95 % t interval; None for a single pair.
        high: Upper end.
        verdict: `above` or `below` where the interval excludes 0, `within the margin` where it lies
            inside; `not separated` where neither holds. The first two may come with the third.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    verdict: str


def paired(differences: Sequence[float], margin: float) -> Paired:
    """Returns what differences of pairs say.

    Args:
        differences: One for each pair.
        margin: Largest difference that does not matter.
    """
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return Paired(n, mean, None, None, NOT_SEPARATED)
    from scipy import stats  # takes longer to load than most reports take to write

    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = quantile * statistics.stdev(differences) / math.sqrt(n)
    low, high = mean - half, mean + half
    found = {ABOVE: low > 0, BELOW: high < 0, WITHIN: -margin <= low and high <= margin}
    verdict = ", ".join(name for name, holds in found.items() if holds)
    return Paired(n, mean, low, high, verdict or NOT_SEPARATED)


def paired_rows(rows: Rows, reference: str, margin: float) -> list[dict[str, Any]]:
    """Returns how far the endpoint of each arm is from that of one, by seed, at each budget.

    Args:
        rows: Of the encoders of a comparison; those without an endpoint, those before training and
            those of a kind that is not chosen are left out.
        reference: The arm that the others are compared with; where it has several teacher shares,
            by the first.
        margin: Largest difference that does not matter.

    Returns:
        The keys of the arm, `reference`, and the fields of `Paired`.
    """
    keys = ("arm", "method", "encoder", "teacher_share", "budget")
    of_arms: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        if row["flops"] and row["chosen"] and row[ENDPOINT] is not None:
            key = tuple(row[name] for name in keys)
            of_arms.setdefault(key, {})[row["seed"]] = row[ENDPOINT]
    bases: dict[tuple[Any, ...], dict[int, float]] = {}
    for key, found in of_arms.items():
        if key[0] == reference:
            bases.setdefault((key[2], key[4]), found)
    result = []
    for key, found in of_arms.items():
        base = bases.get((key[2], key[4]), {})
        differences = [found[seed] - base[seed] for seed in found if seed in base]
        if differences and found is not base:
            names = dict(zip(keys, key, strict=True)) | {"reference": reference}
            result.append(names | paired(differences, margin)._asdict())
    return result


def best_trials(
    groups: Rows, columns: Sequence[str], trials: Mapping[str, Sequence[Sequence[str]]]
) -> list[dict[str, Any]]:
    """Returns the best trial of each arm, encoder and budget.

    Args:
        groups: Means over seeds, as `studies.report.groups` returns them.
        columns: The accuracies whose mean chooses.
        trials: Of each arm, as the key `trials` of a comparison.

    Returns:
        The group, `value`, which has chosen it, and `edges`: its values that are the smallest or
        largest that were tried.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in groups:
        if group.get("trial") is None or not group["chosen"]:
            continue
        key = group["arm"], group["encoder"], group["budget"]
        value = statistics.fmean(group[column] for column in columns)
        if key not in found or value > found[key]["value"]:
            found[key] = {**group, "value": value}
    for one in found.values():
        one["edges"] = _edges(one["trial"], trials[one["arm"]])
    return list(found.values())


def _edges(best: str, trials: Sequence[Sequence[str]]) -> list[str]:
    tried: dict[str, set[float]] = {}
    own: dict[str, float] = {}
    for trial in trials:
        for override in trial:
            key, _, text = override.partition("=")
            try:
                value = float(text)
            except ValueError:
                continue
            tried.setdefault(key, set()).add(value)
            if " ".join(trial) == best:
                own[key] = value
    return [
        f"{key}={value:g} is the {'smallest' if value == min(tried[key]) else 'largest'} tried"
        for key, value in own.items()
        if len(tried[key]) > 1 and value in (min(tried[key]), max(tried[key]))
    ]


def paired_table(found: Rows, margin: float) -> str:
    """Returns what `paired_rows` returned as Markdown; nothing where there is nothing."""
    if not found:
        return ""
    header = ["arm", "budget", "pairs", "difference", "95 % interval", "verdict"]
    lines = []
    for one in found:
        interval = "" if one["low"] is None else f"{one['low']:+.3f} to {one['high']:+.3f}"
        numbers = one["n"], f"{one['difference']:+.3f}", interval, one["verdict"]
        lines.append([label(one), budget(one), *numbers])
    reference = found[0]["reference"]
    title = f"Endpoint less that of {reference}, paired by seed; margin {margin:g}"
    return f"\n{title}\n\n{markdown(header, lines)}"


def best_table(found: Rows, by: Sequence[str]) -> str:
    """Returns what `best_trials` returned as Markdown; nothing where there is nothing."""
    if not found:
        return ""
    lines = [
        [label(one), budget(one), f"{one['value']:.3f}", one["n"], "; ".join(one["edges"])]
        for one in found
    ]
    title = f"Best trials, by the mean of {', '.join(by)}"
    return f"\n{title}\n\n{markdown(['trial', 'budget', 'mean', 'seeds', 'at the edge'], lines)}"
