"""The figure of a claim: what its encoders are worth, and its statements with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from salt_plugin.report.figures import as_it_is, save

COLOURS = {"supports": "tab:green", "contradicts": "tab:red"}
INCHES = 5.2

Row = Mapping[str, Any]


def draw_claim(path: Path, says: str, values: Sequence[Row], findings: Sequence[Row]) -> None:
    """Draws values beside statements: a dot for each encoder, a bar for each interval.

    Green intervals support their statement, red ones contradict it, grey ones do neither. Of a
    statement about a loss, accuracy is drawn against it.

    Args:
        path: The PNG.
        says: The claim.
        values: `arm`, `seed`, `accuracy` and `loss_of_STAGE` of each encoder.
        findings: `statement`, `verdict`, `effect`, `low` and `high`.
    """
    losses = sorted({key for row in values for key in row if key.startswith("loss_of_")})
    panels = 2 + len(losses)
    figure, axes = plt.subplots(1, panels, figsize=(INCHES * panels, 4.2), layout="constrained")
    _draw_values(axes[0], values)
    _draw_findings(axes[1], findings)
    for axis, key in zip(axes[2:], losses, strict=True):
        for arm in dict.fromkeys(row["arm"] for row in values):
            of = [row for row in values if row["arm"] == arm and row[key] is not None]
            axis.scatter([row[key] for row in of], [row["accuracy"] for row in of], label=arm)
        axis.set(xlabel=key.replace("_", " "), ylabel="accuracy")
        axis.legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.suptitle(as_it_is(says))
    save(figure, path)


def _draw_values(axis: Any, values: Sequence[Row]) -> None:
    """Draws a column for each arm, with a line for each seed that is in several."""
    arms = list(dict.fromkeys(row["arm"] for row in values))
    for seed in dict.fromkeys(row["seed"] for row in values):
        of = [row for row in values if row["seed"] == seed]
        places = [arms.index(row["arm"]) for row in of]
        joined = "-" if len({*places}) == len(places) else ""
        axis.plot(places, [row["accuracy"] for row in of], f"o{joined}", alpha=0.7)
    axis.set_xticks(range(len(arms)), map(as_it_is, arms), rotation=20)
    axis.set(ylabel="accuracy", title="encoders, a colour for each seed")


def _draw_findings(axis: Any, findings: Sequence[Row]) -> None:
    for place, one in enumerate(findings):
        colour = COLOURS.get(one["verdict"], "grey")
        if one["low"] is not None:
            axis.plot([one["low"], one["high"]], [place, place], color=colour, linewidth=3)
        if one["effect"] is not None:
            axis.plot(one["effect"], place, "o", color=colour, markersize=8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(findings)), [as_it_is(one["statement"]) for one in findings])
    axis.set_ylim(len(findings) - 0.5, -0.5)
    axis.set(xlabel="difference in accuracy, or correlation", title="95 % intervals")
