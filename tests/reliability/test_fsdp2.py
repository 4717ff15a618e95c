"""Two processes that hold a part of the weights each do what one does, and share its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from motion import SHORT, write_encoder, write_motion
from ranked import Ended, train_together
from safetensors.torch import load_file

from salt_plugin.run_directory import read_metrics

pytestmark = pytest.mark.slow

FSDP2 = "trainer.strategy=fsdp2"
RESULT = {"pixel_teacher": "teacher"}


def trained(size: int, root: Path, overrides: list[str], log: str = "log") -> Path:
    ended: list[Ended] = train_together(size, root / "run", root / log, overrides)
    assert [one.status for one in ended] == [0] * size, [one.message for one in ended]
    return root / "run"


def given(videos: Path, method: str, steps: int = 20) -> list[str]:
    more = ["method.teacher.max_steps=20"] if method == "salt" else []
    drawn = ["method.model.drop_path=0"]  # drawn by rank
    return [
        *(f"method={method}", f"input_dir={videos}", f"trainer.max_steps={steps}"),
        *("method.global_batch_size=4", "loader.batch_size=1", *drawn, *more),
    ]


def require_alike(one: Path, other: Path) -> None:
    for stage in one.glob("*/metrics.csv"):
        rows = [read_metrics(root / stage.relative_to(one)) for root in (one, other)]
        assert len(rows[0]) == len(rows[1])
        for name in ("loss", "grad_norm"):
            expected, found = ([row[name] for row in run] for run in rows)
            assert found == pytest.approx(expected, rel=1e-3)
            assert found[0] == pytest.approx(expected[0], rel=2e-6)
        weights, parts = (
            load_file(root / stage.relative_to(one).with_name("encoder.safetensors"))
            for root in (one, other)
        )
        assert weights.keys() == parts.keys()
        assert all(weights[name].shape == parts[name].shape for name in weights)


@pytest.mark.parametrize("method", ["salt", "vjepa2"])
def test_twenty_steps_are_those_of_one_process(
    method: str, tiny_videos: Path, tmp_path: Path
) -> None:
    one = trained(1, tmp_path / "1", given(tiny_videos, method))
    two = trained(2, tmp_path / "2", [*given(tiny_videos, method), FSDP2])
    require_alike(one, two)
