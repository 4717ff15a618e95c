"""Intervals that hold an effect with 95 % confidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95

# Fewer leave Fisher's interval no degree of freedom.
FEWEST_FOR_CORRELATION = 4


class Interval(NamedTuple):
    """An effect and what it may be as well.

    Attributes:
        effect: As it was found; None where there is nothing to find it from.
        low: The lower end; None where there are too few values.
        high: The upper end, likewise.
        n: Number of values.
    """

    effect: float | None
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Interval:
    """Returns the mean of independent values, e.g. of differences by seed, with a t interval."""
    n = len(values)
    mean = statistics.fmean(values) if n else None
    if mean is None or n < 2:
        return Interval(mean, None, None, n)
    from scipy import stats  # takes longer to load than most reports take to write

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(values) / n**0.5
    return Interval(mean, mean - half, mean + half, n)


def correlation_interval(xs: Sequence[float], ys: Sequence[float]) -> Interval:
    """Returns Pearson's correlation with Fisher's interval; None where either never changes."""
    n = len(xs)
    if n < 2 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return Interval(None, None, None, n)
    found = max(-1.0, min(1.0, statistics.correlation(xs, ys)))
    if n < FEWEST_FOR_CORRELATION:
        return Interval(found, None, None, n)
    if abs(found) == 1.0:
        return Interval(found, found, found, n)
    half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) / (n - 3) ** 0.5
    middle = math.atanh(found)
    return Interval(found, math.tanh(middle - half), math.tanh(middle + half), n)
