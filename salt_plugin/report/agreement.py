"""How well losses predict accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A line fits any two points.
FEWEST_POINTS = 3


class Agreement(NamedTuple):
    """How well a loss predicts an accuracy; None where it is not defined.

    Attributes:
        n: Number of encoders.
        r2: Coefficient of determination of the least-squares line accuracy = slope * loss +
            intercept.
        spearman: Rank correlation; -1 where a lower loss always goes with a higher accuracy.
        slope: Of the line, accuracy per unit of loss.
        intercept: Of the line.
    """

    n: int
    r2: float | None
    spearman: float | None
    slope: float | None
    intercept: float | None


def agreement(losses: Sequence[float], accuracies: Sequence[float]) -> Agreement:
    """Returns how well losses predict accuracies (claim C5: the student's does, at one teacher).

    Not defined for fewer than three encoders, or where either is the same for all.
    """
    n = len(losses)
    if n < FEWEST_POINTS or np.ptp(losses) == 0 or np.ptp(accuracies) == 0:
        return Agreement(n, None, None, None, None)
    from scipy import stats  # takes longer to load than most reports take to write

    line = stats.linregress(losses, accuracies)
    spearman = float(stats.spearmanr(losses, accuracies).statistic)
    return Agreement(n, float(line.rvalue) ** 2, spearman, float(line.slope), float(line.intercept))
