"""What separates the arms of a comparison: differences paired by seed, and the best trials."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from salt_plugin.report.comparison_table import budget, label, markdown
from salt_plugin.report.intervals import mean_interval

ENDPOINT = "endpoint"
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
    mean, (_, low, high, n) = statistics.fmean(differences), mean_interval(differences)
    if low is None or high is None:
        return Paired(n, mean, None, None, NOT_SEPARATED)
    found = {ABOVE: low > 0, BELOW: high < 0, WITHIN: -margin <= low and high <= margin}
    verdict = ", ".join(name for name, holds in found.items() if holds)
    return Paired(n, mean, low, high, verdict or NOT_SEPARATED)


def paired_rows(rows: Rows, reference: str, margin: float) -> list[dict[str, Any]]:
    """Returns how far the endpoint of each arm is from that of one, by seed, at each budget.

    Args:
        rows: Of the encoders of a comparison; those without an endpoint, those before training,
            those of a kind that is not chosen and those of seeds that are not whole are left out.
        reference: The arm that the others are compared with; where it has several teacher shares,
            by the first.
        margin: Largest difference that does not matter.

    Returns:
        The keys of the arm, `reference`, and the fields of `Paired`.
    """
    keys = ("arm", "method", "encoder", "teacher_share", "budget")
    of_arms: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        if row["flops"] and row["chosen"] and row["whole"] and row[ENDPOINT] is not None:
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
    """Returns the best trial of each arm, encoder and budget, and the best value of each key.

    Args:
        groups: Means over seeds, as `studies.report.groups` returns them.
        columns: The accuracies whose mean chooses.
        trials: Of each arm, as the key `trials` of a comparison.

    Returns:
        The group, `value`, which has chosen it, `best`, the best value of each key that was tried
        among the trials that have of all other keys what most trials have, and `edges`: those of
        these values that are the smallest or largest among them.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    scores: dict[tuple[Any, ...], dict[str, float]] = {}
    for group in groups:
        if group.get("trial") is None or not group["chosen"]:
            continue
        key = group["arm"], group["encoder"], group["budget"]
        value = statistics.fmean(group[column] for column in columns)
        scores.setdefault(key, {})[group["trial"]] = value
        if key not in found or value > found[key]["value"]:
            found[key] = {**group, "value": value}
    for key, one in found.items():
        one["best"], one["edges"] = _best_values(trials[one["arm"]], scores[key])
    return list(found.values())


def _best_values(
    trials: Sequence[Sequence[str]], scores: Mapping[str, float]
) -> tuple[dict[str, str], list[str]]:
    """Returns the best value of each key that trials vary, and which of them lie at an edge."""
    given = {
        " ".join(trial): {name: text for name, _, text in (one.partition("=") for one in trial)}
        for trial in trials
    }
    keys = list(dict.fromkeys(key for trial in given.values() for key in trial))
    texts = {key: [trial.get(key) for trial in given.values()] for key in keys}
    usual = {key: statistics.mode(texts[key]) for key in keys}
    # Keys that change together have one pattern.
    pattern = {key: [texts[key].index(text) for text in texts[key]] for key in keys}
    best, edges = {}, []
    for key in keys:
        others = {name: usual[name] for name in keys if pattern[name] != pattern[key]}
        line = {
            trial[key]: scores[name]
            for name, trial in given.items()
            if name in scores
            and key in trial
            and all(trial.get(other) == text for other, text in others.items())
        }
        if len(line) < 2:
            continue
        best[key] = max(line, key=line.__getitem__)
        try:
            values = {text: float(text) for text in line}
        except ValueError:
            continue
        value = values[best[key]]
        for end, name in ((min(values.values()), "smallest"), (max(values.values()), "largest")):
            if value == end:
                edges.append(f"{key}={value:g} is the {name} tried")
    return best, edges


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
    lines = []
    for one in found:
        best = ", ".join(f"{key}={text}" for key, text in one["best"].items())
        edges = "; ".join(one["edges"])
        lines.append([label(one), budget(one), f"{one['value']:.3f}", one["n"], best, edges])
    title = f"Best trials, by the mean of {', '.join(by)}"
    header = ["trial", "budget", "mean", "seeds", "best value of each key", "at the edge"]
    return f"\n{title}\n\n{markdown(header, lines)}"
