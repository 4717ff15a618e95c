"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from salt_plugin.evaluation.attentive import AttentiveProbe
from salt_plugin.evaluation.bootstrap import Interval
from salt_plugin.evaluation.grid_settings import GridPoint


@dataclass(frozen=True)
class ProtocolResult:
    """One protocol on one encoder.

    Attributes:
        accuracy: On the test list.
        chance: One over the number of classes.
        n_test: Videos of the test list.
        interval: Bootstrap's 95 % interval of the accuracy.
        predicted_n: Class of each test video, int64 [n].
        grid: All probes of the grid with their accuracy on the list used for choosing; empty for
            protocols without a grid.
        best: Place of the chosen one in the grid.
        chosen_on: `val` or `test`; None where there was nothing to choose.
    """

    accuracy: float
    chance: float
    n_test: int
    interval: Interval
    predicted_n: Tensor
    grid: Sequence[GridPoint] = ()
    best: int | None = None
    chosen_on: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns what can be written as JSON; predictions are left out."""
        found: dict[str, Any] = {
            "accuracy": self.accuracy,
            "chance": self.chance,
            "n_test": self.n_test,
            "interval": list(self.interval),
        }
        if self.best is not None:
            found["best"] = self.grid[self.best]._asdict()
            found["chosen_on"] = self.chosen_on
            found["grid"] = [point._asdict() for point in self.grid]
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
    """

    encoder: str
    classes: list[str]
    labels_n: Tensor
    results: dict[str, ProtocolResult]
    controls: dict[str, dict[str, ProtocolResult]]
    probe: AttentiveProbe | None

    def as_dict(self) -> dict[str, Any]:
        """Returns each protocol's numbers, and those of controls under `controls`."""
        found: dict[str, Any] = {name: one.as_dict() for name, one in self.results.items()}
        if self.controls:
            found["controls"] = {
                control: {name: one.as_dict() for name, one in results.items()}
                for control, results in self.controls.items()
            }
        return found
