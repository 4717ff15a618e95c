"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    clip: dict[str, Any] = field(default_factory=dict)
    random_weights: bool = False
    leaks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns each protocol's numbers, and those of controls under `controls`.

        Beside them stand `clip`, `random_weights` and `leaks`.
        """
        found: dict[str, Any] = {
            "clip": self.clip,
            "random_weights": self.random_weights,
            "leaks": self.leaks,
        }
        found |= {name: one.as_dict() for name, one in self.results.items()}
        if self.controls:
            found["controls"] = {
                control: {name: one.as_dict() for name, one in results.items()}
                for control, results in self.controls.items()
            }
        return found
