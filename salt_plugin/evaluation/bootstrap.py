"""Confidence intervals of an accuracy by the bootstrap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DRAWS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def accuracy_interval(correct_n: Tensor, groups_n: Tensor | None = None, seed: int = 0) -> Interval:
    """Returns the percentile bootstrap's 95 % interval of an accuracy.

    Whole groups are drawn, with replacement and as many as there are: videos of one group, such
    as clips of one recording, are right or wrong together, and tell less than independent ones.

    Args:
        correct_n: Whether each video was right, bool [n].
        groups_n: Group of each, int64 [n]; None: each is a group of its own.
        seed: Of the draws.
    """
    groups = torch.arange(len(correct_n)) if groups_n is None else groups_n
    place_n = torch.unique(groups, return_inverse=True)[1].numpy()
    right_g = np.bincount(place_n, weights=correct_n.numpy().astype(np.float64))
    size_g = np.bincount(place_n)
    rng = np.random.default_rng(seed)
    shares = np.full(len(size_g), 1 / len(size_g))
    accuracies = []
    for _ in range(DRAWS):
        times_g = rng.multinomial(len(size_g), shares)
        accuracies.append(times_g @ right_g / (times_g @ size_g))
    low, high = np.quantile(accuracies, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
