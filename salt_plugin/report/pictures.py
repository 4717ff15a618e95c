"""Pictures of what an encoder and a probe make of videos, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.metrics import ConfusionMatrixDisplay

from salt_plugin.report.figures import as_it_is, draw_strips, save

CELL_INCHES = 1.7
PRINTED = 12  # most classes whose shares are written into the matrix
NAMED = 30  # most classes whose names are legible side by side
LARGEST = 12.0  # inches


def draw_pca(path: Path, clip: np.ndarray, maps: Mapping[str, np.ndarray]) -> None:
    """Draws a clip, and under it what `evaluation.pictures.pca_rgb` makes of its features.

    Args:
        path: The PNG.
        clip: float [F, H, W, 3] in [0, 1].
        maps: By title, float [T, h, w, 3] in [0, 1]; T divides F, and the first of every F / T
            frames is shown.
    """
    frames = clip[:: len(clip) // len(next(iter(maps.values())))]
    rows = {title: _enlarged(colours, frames) for title, colours in maps.items()}
    draw_strips(path, {"clip": frames, **rows}, CELL_INCHES)


def draw_attention(path: Path, clip: np.ndarray, attention: np.ndarray) -> None:
    """Draws where in a clip the query of an attentive probe looks.

    Args:
        path: The PNG.
        clip: float [F, H, W, 3] in [0, 1].
        attention: float [T, h, w], 0 or more, such as the mean over the heads; T divides F. It is
            made to sum to 1. Colours go from 0 to the largest value of the clip, so that times can
            be compared; the title names the share of each time.
    """
    attention = attention / max(float(attention.sum()), 1e-30)
    frames = clip[:: len(clip) // len(attention)]
    largest = float(attention.max())
    grey = frames.mean(-1, keepdims=True).repeat(3, -1)
    colours = plt.get_cmap("inferno")(attention / (largest or 1.0))[..., :3]
    shares = ", ".join(f"{share:.0%}" for share in attention.sum((1, 2)))
    title = (
        f"attention of the query, most: {largest * attention.size:.1f} x uniform; by time: {shares}"
    )
    rows = {"clip": grey, title: 0.3 * grey + 0.7 * _enlarged(colours, frames)}
    draw_strips(path, rows, CELL_INCHES)


def draw_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draws a confusion matrix, each row as shares of its class; many classes without names.

    Args:
        path: The PNG.
        counts: int [C, C]: test videos by true class (rows) and predicted class (columns).
        classes: Their names.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = ConfusionMatrixDisplay(shares, display_labels=[as_it_is(name) for name in classes])
    side = min(LARGEST, max(5.0, 0.45 * len(classes) + 2.5))
    with plt.rc_context({"font.size": 12}):
        figure, axis = plt.subplots(figsize=(side + 1, side))
        shown.plot(
            ax=axis,
            cmap="Blues",
            include_values=len(classes) <= PRINTED,
            values_format=".0%",
            xticks_rotation=90,
            im_kw={"vmin": 0, "vmax": 1},
        )
        axis.set(xlabel="predicted class", ylabel="true class")
        if len(classes) > NAMED:
            axis.set(xticks=[], yticks=[])
        save(figure, path)


def draw_class_accuracy(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draws the accuracy of each class, the best on top, with the mean over classes and chance.

    Of more than 30 classes, the 15 best and the 15 worst are shown.

    Args:
        path: The PNG.
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


def _enlarged(maps_thwc: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Returns maps at the height and width of frames, by the nearest neighbour."""
    (height, width), (rows, columns) = frames.shape[1:3], maps_thwc.shape[1:3]
    y, x = np.arange(height) * rows // height, np.arange(width) * columns // width
    return maps_thwc[:, y][:, :, x]
