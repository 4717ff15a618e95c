from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

OVERRIDES = [
    "method.clip.size=32",
    "method.clip.frames=4",
    "method.clip.step=1",
    "method.model.patch_size=8",
    "method.model.predictor.dim=24",
    "method.model.predictor.depth=1",
    "method.model.predictor.num_heads=2",
    "method.checkpoint.every_n_steps=1",
    "loader.batch_size=2",
    "loader.num_workers=0",
    "trainer.precision=32",
    "trainer.max_steps=3",
]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def tiny(tiny_videos: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a comparison of two tiny runs, with changes."""

    def write(**changes: Any) -> Path:
        folder = str(tiny_videos)
        content: dict[str, Any] = {
            "methods": ["salt", "pixel_teacher"],
            "encoders": ["vit_nano"],
            "budgets": [None],
            "seeds": [1],
            "overrides": [f"input_dir={folder}", *OVERRIDES],
            "method_overrides": {"salt": ["method.teacher.max_steps=2"]},
            "probe": [
                {
                    "name": "bees",
                    "data": "folder",
                    "train": folder,
                    "test": folder,
                    "protocols": ["linear", "knn"],
                    "frames": 4,
                    "size": 32,
                    "step": 1,
                    "workers": 0,
                }
            ],
        }
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump(content | changes))
        return file

    return write
