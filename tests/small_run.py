"""What makes a run on the tiny videos short."""

from __future__ import annotations

_MODEL = [
    "method.encoder=vit_nano",
    "method.clip.step=1",
    "method.model.predictor.dim=48",
    "method.model.predictor.depth=1",
    "method.model.predictor.num_heads=2",
    "loader.num_workers=0",
    "trainer.precision=32",
]
SMALL = [*_MODEL, "method.clip.size=64", "method.clip.frames=8", "loader.batch_size=4"]
TINY = [*_MODEL, "method.clip.size=32", "method.clip.frames=4", "loader.batch_size=2"]
