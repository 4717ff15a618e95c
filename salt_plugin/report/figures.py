"""Figures of a run, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt

CELL_INCHES = 0.9

# Where a title stands anyway. Matplotlib would measure every text first, a third of the time.
TITLE_Y = 1.0


def draw_strips(path: Path, rows: Mapping[str, np.ndarray], inches: float = CELL_INCHES) -> None:
    """Draws clips under one another, one frame beside the next.

    Args:
        path: Where.
        rows: By title, float [T, H, W, C] in [0, 1]; all of the same length.
        inches: Width of a frame.
    """
    frames = max(len(clip) for clip in rows.values())
    size = (inches * frames, inches * len(rows) * 1.35)
    # An axis for each row, not for each frame: axes take most of the time.
    figure, axes = plt.subplots(len(rows), figsize=size, squeeze=False)
    for axis, (title, clip) in zip(axes[:, 0], rows.items(), strict=True):
        axis.imshow(_side_by_side(clip))
        axis.set_title(title, fontsize=8, loc="left", y=TITLE_Y)
        axis.set_axis_off()
    save(figure, path)


def _side_by_side(clip: np.ndarray) -> np.ndarray:
    """Joins frames, float [T, H, W, C], to one picture [H, T * (W + gap) - gap, C], gaps white."""
    gap = max(1, clip.shape[2] // 8)
    apart = np.pad(clip, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=1.0)
    return np.concatenate(list(apart), axis=1)[:, :-gap]


def draw_losses(path: Path, stages: Mapping[str, list[dict[str, Any]]]) -> None:
    """Draws the loss of each stage over its steps: every step, and a running mean.

    Beside them, of a stage whose targets were watched for collapse, spread and effective rank.

    Args:
        path: Where.
        stages: By name, the rows of its `metrics.csv`.
    """
    watched = {
        name: found
        for name, rows in stages.items()
        if (found := [row for row in rows if "target_rank" in row])
    }
    panels = len(stages) + len(watched)
    # Fixed gaps: a layout that measures all texts first takes as long again.
    figure, axes = plt.subplots(
        1, panels, figsize=(5 * panels, 3.2), squeeze=False, gridspec_kw={"wspace": 0.4}
    )
    for axis, (name, rows) in zip(axes[0], stages.items(), strict=False):
        steps = np.array([row["step"] for row in rows])
        losses = np.array([row["loss"] for row in rows])
        width = max(1, len(losses) // 50)
        running = np.convolve(losses, np.ones(width) / width, mode="valid")
        axis.plot(steps, losses, linewidth=0.5, alpha=0.4)
        axis.plot(steps[width - 1 :], running)
        axis.set_title(f"{name}: loss", fontsize=9, y=TITLE_Y)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    for axis, (name, rows) in zip(axes[0, len(stages) :], watched.items(), strict=True):
        _draw_targets(axis, name, rows)
    save(figure, path)


def _draw_targets(axis: Any, name: str, rows: list[dict[str, Any]]) -> None:
    steps = [row["step"] for row in rows]
    other = axis.twinx()
    for one, column, colour in ((axis, "target_spread", "C0"), (other, "target_rank", "C1")):
        one.plot(steps, [row[column] for row in rows], marker=".", color=colour)
        one.set_ylabel(column, color=colour)
        one.set_ylim(bottom=0)
    axis.set_title(f"{name}: targets before normalisation", fontsize=9, y=TITLE_Y)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)


def dim_outside(clip: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Greys out what is not kept: float [T, H, W, C] and bool [T, H, W]."""
    return np.where(kept[..., None], clip, 0.5 + 0.12 * (clip - 0.5))


def as_it_is(text: str) -> str:
    """Returns text of a user so that matplotlib draws it as it is: no formula, no odd letters."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def save(figure: Any, path: Path) -> None:
    """Writes a figure, with its folder, and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
