"""A small labelled set in which motion alone tells the classes, and an encoder to start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from salt_plugin.checkpoints import save_encoder
from salt_plugin.data.demo import write_video
from salt_plugin.models import EncoderShape, VideoEncoder

SHAPE = EncoderShape.named("vit_nano", patch_size=8)
MEAN = [0.4, 0.5, 0.6]
SHORT = [
    "method=finetune",
    "loader.num_workers=0",
    "loader.batch_size=4",
    "trainer.precision=32",
    "trainer.max_epochs=3",
    "optimizer.lr=1e-3",
    "method.pool=time",
    "method.mixup=0.2",
    "method.data.cache=true",
    "method.model.drop_path=0.2",
    "method.transform.hflip=0",
]


def write_motion(folder: Path) -> Path:
    """Writes lists of clips that brighten (`up`) or darken (`down`): no frame tells which."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 8), ("val", 4), ("test", 3)):
        rows = []
        for number in range(2 * count):
            up = number % 2 == 0
            grey = np.linspace(40, 200, 10)[:: 1 if up else -1, None, None, None]
            frames = grey + rng.normal(0, 12, (10, 40, 40, 3))
            path = folder / f"{name}{number}.mp4"
            write_video(path, frames.clip(0, 255).astype(np.uint8), fps=10)
            rows.append(f"{path.name},{'up' if up else 'down'}\n")
        (folder / f"{name}.csv").write_text("path,label\n" + "".join(rows))
    return folder


def write_encoder(folder: Path) -> Path:
    """Writes an encoder file, and a card that tells how its clips were."""
    torch.manual_seed(3)
    clip = {"frames": 6, "size": 32, "step": 1, "fps": None, "mean": MEAN, "std": [0.2] * 3}
    bill = {"compute": {"bill": {"total": 1000}}}
    file = folder / "encoder.safetensors"
    save_encoder(VideoEncoder(SHAPE, init_std=0.057), file, {"input": clip, **bill})
    return file
