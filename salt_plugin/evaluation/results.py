"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from salt_plugin.evaluation.grid import GridPoint
from salt_plugin.evaluation.probes import ReadoutPoint
from salt_plugin.models.attentive import AttentiveProbe

DRAWS = 2000
DRAWS_AT_ONCE = 50  # the draws of a part are in memory together


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class ProtocolResult:
    """One protocol on one encoder.

    Attributes:
        accuracy: On the test list.
        chance: One over the number of classes.
        n_test: Videos of the test list.
        interval: Bootstrap's 95 % interval of the accuracy.
        predicted_n: Class of each test video, int64 [n].
        kept: What it read of the tokens, in words.
        grid: All probes of the grid with their accuracy on the list used for choosing; empty for
            protocols without a grid.
        best: Place of the chosen one in the grid.
        chosen_on: `val`, `test`, or `train` for a part of the training list; None where there was
            nothing to choose.
        unconverged: Why the training of an attentive probe has not converged; None where it has.
    """

    accuracy: float
    chance: float
    n_test: int
    interval: Interval
    predicted_n: Tensor
    kept: str = ""
    grid: Sequence[GridPoint | ReadoutPoint] = ()
    best: int | None = None
    chosen_on: str | None = None
    unconverged: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns what can be written as JSON; predictions are left out."""
        names = ("accuracy", "chance", "n_test", "kept", "unconverged")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found["interval"] = list(self.interval)
        if self.best is not None:
            points = [point._asdict() for point in self.grid]
            found |= {"best": points[self.best], "chosen_on": self.chosen_on, "grid": points}
        return found


@dataclass(frozen=True)
class ProbeReport:
    """All protocols on one encoder.

    Attributes:
        encoder: Its name.
        classes: Names of the classes.
        labels_n: Class of each test video, int64 [n].
        results: By protocol.
        controls: By control, then by protocol.
        probe: The chosen attentive probe, in evaluation mode; None where it was not asked for.
        means_nvd: What `linear` and `knn` read of the views of each test video, float32
            [n, V, K * D]; the mean tokens where nothing else is kept. None with `vjepa2`, which
            keeps no features.
        clip: Of the clips, `frames`, `size` in pixels, and `step` or `fps`.
        random_weights: Whether the encoder is untrained.
        leaks: Videos in two lists and files with two labels, as `find_leaks` counts them.
    """

    encoder: str
    classes: list[str]
    labels_n: Tensor
    results: dict[str, ProtocolResult]
    controls: dict[str, dict[str, ProtocolResult]]
    probe: AttentiveProbe | None
    means_nvd: Tensor | None
    clip: dict[str, Any] = field(default_factory=dict)
    random_weights: bool = False
    leaks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns each protocol's numbers, and those of controls under `controls`.

        Beside them stand `encoder`, `clip`, `random_weights` and `leaks`.
        """
        found: dict[str, Any] = {
            name: getattr(self, name) for name in ("encoder", "clip", "random_weights", "leaks")
        }
        found |= _as_dicts(self.results)
        if self.controls:
            found["controls"] = {name: _as_dicts(one) for name, one in self.controls.items()}
        return found


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
    if len(size_g) < 2:  # nothing to draw from
        return Interval(*[correct_n.double().mean().item()] * 2)
    found = bootstrap(
        (right_g, size_g),
        lambda right, size, axis: right.sum(axis) / size.sum(axis),
        paired=True,
        n_resamples=DRAWS,
        batch=DRAWS_AT_ONCE,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Interval(float(low), float(high))


def _as_dicts(results: dict[str, ProtocolResult]) -> dict[str, dict[str, Any]]:
    return {name: one.as_dict() for name, one in results.items()}
