"""What the pictures show; how they look is for eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from salt_plugin.report.figures import draw_losses
from salt_plugin.report.pictures import (
    draw_attention,
    draw_class_accuracy,
    draw_confusion,
    draw_pca,
)

CLIP = np.linspace(0, 1, 8 * 16 * 16 * 3).reshape(8, 16, 16, 3)


def _pixels(path: Path) -> np.ndarray:
    return plt.imread(path)[..., :3]


def test_watched_targets_get_a_panel_of_their_own(tmp_path: Path) -> None:
    losses = [{"step": step, "loss": 1 / step} for step in range(1, 301)]
    watched = [
        {**row, "target_spread": 0.5, "target_rank": 40.0} if row["step"] % 100 == 0 else row
        for row in losses
    ]
    widths = []
    for name, rows in (("frozen", losses), ("moving", watched)):
        draw_losses(tmp_path / f"{name}.png", {"student": rows})
        widths.append(_pixels(tmp_path / f"{name}.png").shape[1])
    assert widths[1] > 1.8 * widths[0]


def test_the_colours_of_features_are_shown_under_the_clip(tmp_path: Path) -> None:
    red, green = np.zeros((4, 2, 2, 3)), np.zeros((4, 2, 2, 3))
    red[..., 0], green[..., 1] = 1, 1
    draw_pca(tmp_path / "pca.png", CLIP, {"early": red, "late": green})
    pixels = _pixels(tmp_path / "pca.png")
    is_red, is_green = ((pixels == colour).all(-1) for colour in ([1, 0, 0], [0, 1, 0]))
    assert is_red.sum() == pytest.approx(is_green.sum(), rel=0.05)
    assert is_red.mean() > 0.15
    assert is_red.any(1).nonzero()[0].max() < is_green.any(1).nonzero()[0].min()


def test_attention_is_shown_relative_to_its_sum(tmp_path: Path) -> None:
    attention = np.random.default_rng(0).random((4, 2, 2))
    files = [tmp_path / f"{name}.png" for name in ("one", "scaled", "uniform")]
    for file, weights in zip(files, (attention, 50 * attention, np.ones((4, 2, 2))), strict=True):
        draw_attention(file, CLIP, weights)
    one, scaled, uniform = (file.read_bytes() for file in files)
    assert one == scaled != uniform


def test_a_row_of_the_confusion_is_shown_in_shares(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (20, 20))
    scaled = counts.copy()
    scaled[3] *= 10
    names = [f"class {i}" for i in range(20)]
    for name, table in (("one", counts), ("scaled", scaled)):
        draw_confusion(tmp_path / f"{name}.png", table, names)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "scaled.png").read_bytes()


@pytest.mark.parametrize("count", [2, 6, 200])
def test_pictures_of_classes_stay_legible_and_small(tmp_path: Path, count: int) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (count, count))
    counts[1] = 0  # a class without test videos
    names = [f"class {i}" for i in range(count)]
    draw_confusion(tmp_path / "confusion.png", counts, names)
    draw_class_accuracy(tmp_path / "classes.png", counts, names)
    for file in ("confusion.png", "classes.png"):
        height, width, _ = _pixels(tmp_path / file).shape
        assert 100 < height < 1600
        assert 400 < width < 1600
