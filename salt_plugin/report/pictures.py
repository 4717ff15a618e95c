"""Pictures of what an encoder and a probe make of videos, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from salt_plugin.report.figures import as_it_is, save

CELL_INCHES = 1.7
COUNTED = 12  # most classes whose counts are written into the matrix
NAMED = 30  # most classes whose names are legible side by side
LARGEST = 12.0  # inches


def draw_pca(path: Path, clip: np.ndarray, maps: Mapping[str, np.ndarray]) -> None:
    """Draws a clip, and under it what `evaluation.pictures.pca_rgb` makes of its features.

    Args:
        path: Where.
        clip: float [F, H, W, 3] in [0, 1].
        maps: By title, float [T, h, w, 3] in [0, 1]; T divides F, and the first of every F / T
            frames is shown.
    """
    first = next(iter(maps.values()))
    frames = clip[:: len(clip) // len(first)]
    rows = {"clip": frames, **maps}
    _draw_rows(path, rows, lambda axis, image: axis.imshow(image, interpolation="nearest"))


def draw_attention(path: Path, clip: np.ndarray, attention: np.ndarray) -> None:
    """Draws where in a clip the query of an attentive probe looks.

    Args:
        path: Where.
        clip: float [F, H, W, 3] in [0, 1].
        attention: float [T, h, w], 0 or more, such as the mean over the heads; T divides F. It is
            made to sum to 1. Colours go from 0 to the largest value of the clip, so that times can
            be compared; below a frame stands its share.
    """
    attention = attention / max(float(attention.sum()), 1e-30)
    frames = clip[:: len(clip) // len(attention)]
    height, width = frames.shape[1:3]
    largest = float(attention.max())

    def show(axis: Any, cell: Any) -> None:
        frame, weights = cell
        axis.imshow(frame.mean(-1), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        if weights is not None:
            axis.imshow(
                weights,
                cmap="inferno",
                vmin=0,
                vmax=largest or 1.0,
                alpha=0.7,
                extent=(0, width, height, 0),
                interpolation="nearest",
            )

    rows = {
        "clip": [(frame, None) for frame in frames],
        f"attention of the query, most: {largest * attention.size:.1f} x uniform": list(
            zip(frames, attention, strict=True)
        ),
    }
    _draw_rows(path, rows, show, below=[f"{share:.0%}" for share in attention.sum((1, 2))])


def draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draws a confusion matrix, each row as shares of its class; many classes go by number.

    Args:
        path: Where.
        counts: int [C, C]: test videos by true class (rows) and predicted class (columns).
        classes: Their names.
    """
    names = [as_it_is(name) for name in classes]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(LARGEST, max(5.0, 0.45 * len(classes) + 2.5))
    with plt.rc_context({"font.size": 12}):
        figure, axis = plt.subplots(figsize=(side + 1, side))
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
        if len(classes) <= NAMED:
            places = range(len(classes))
            axis.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
            axis.set_yticks(places, names)
        axis.set(xlabel="predicted class", ylabel="true class")
        if len(classes) <= COUNTED:
            for (row, column), count in np.ndenumerate(counts):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, str(count), ha="center", va="center", color=colour)
        save(figure, path)


def draw_class_accuracy(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draws the accuracy of each class, the best on top, with the mean over classes and chance.

    Of more than 30 classes, the 15 best and the 15 worst are shown.

    Args:
        path: Where.
        counts: As for `draw_confusion`; a class without test videos is left out.
        classes: Names of the classes.
    """
    videos = counts.sum(1)
    there = np.flatnonzero(videos)
    accuracies = np.diag(counts)[there] / videos[there]
    order = np.argsort(accuracies, kind="stable")
    title = "accuracy"
    if len(order) > NAMED:
        half = NAMED // 2
        title = f"accuracy of the {half} best and the {half} worst of {len(order)} classes"
        order = np.concatenate([order[:half], order[-half:]])
    with plt.rc_context({"font.size": 12}):
        figure, axis = plt.subplots(figsize=(8, max(2.5, 0.34 * len(order) + 1.6)))
        axis.barh(np.arange(len(order)), accuracies[order], color="tab:blue", height=0.75)
        names = [f"{as_it_is(classes[i])} ({videos[i]})" for i in there[order]]
        axis.set_yticks(np.arange(len(order)), names)
        mean = float(accuracies.mean())
        axis.axvline(mean, color="black", label=f"mean over classes {mean:.2f}")
        chance = 1 / len(classes)
        axis.axvline(chance, color="grey", linestyle="--", label=f"chance {chance:.2f}")
        axis.set(xlim=(0, 1), ylim=(-0.6, len(order) - 0.4), xlabel=title)
        axis.set_ylabel("class (test videos)")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        axis.grid(axis="x", alpha=0.3)
        save(figure, path)


def _draw_rows(path: Path, rows: Mapping[str, Any], show: Any, below: Sequence[str] = ()) -> None:
    columns = max(len(cells) for cells in rows.values())
    size = (CELL_INCHES * columns, (CELL_INCHES + 0.35) * len(rows))
    with plt.rc_context({"font.size": 12}):
        figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
        for row, (title, cells) in zip(axes, rows.items(), strict=True):
            for axis, cell in zip(row, cells, strict=True):
                show(axis, cell)
                axis.set(xticks=[], yticks=[])
                axis.set_frame_on(False)
            row[0].set_title(title, loc="left")
        for axis, text in zip(axes[-1], below, strict=False):
            axis.set_xlabel(text)
        figure.subplots_adjust(wspace=0.06, hspace=0.25)
        save(figure, path)
