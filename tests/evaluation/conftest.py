from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from salt_plugin.config import ProbeConfig, probe_config
from salt_plugin.data.demo import write_video
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.models import EncoderShape, VideoEncoder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lists train.csv (12), val.csv (6) and test.csv (6) of three classes.

    Videos are noise, 64x32 at 8 fps with 10 frames, in the colour of their class, 0, 1 or 2.
    """
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        lines = []
        for number in range(count):
            frames = rng.integers(0, 60, (10, 32, 64, 3), dtype=np.uint8)
            frames[..., number % 3] += 180
            write_video(folder / f"{split}{number}.mp4", frames, fps=8)
            lines.append(f"{split}{number}.mp4 {number % 3}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


@pytest.fixture
def small(labelled: Path, tmp_path: Path) -> ProbeConfig:
    """An evaluation on these lists that takes a second."""
    return probe_config(
        train=str(labelled / "train.csv"),
        test=str(labelled / "test.csv"),
        frames=4,
        size=16,
        step=2,
        grid="fast",
        epochs=2,
        workers=0,
        precision="32",
        cache=str(tmp_path / "cache"),
    )


@pytest.fixture(scope="session")
def nano() -> FrozenEncoder:
    torch.manual_seed(0)
    shape = EncoderShape.named("vit_nano", patch_size=8)
    return FrozenEncoder("nano", VideoEncoder(shape, init_std=0.06))
