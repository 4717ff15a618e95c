"""Targets of a method's own making are watched, in case they collapse."""

from __future__ import annotations

from pathlib import Path

import outcome
import pytest
import torch
from small_run import TINY

from salt_plugin.checkpoints import load_encoder, save_encoder
from salt_plugin.config import compose
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.training import metrics


def train(videos: Path, run_dir: Path, *overrides: str) -> Path:
    run(compose(["method=vjepa", *TINY, f"input_dir={videos}", *overrides]), run_dir)
    return run_dir / "student"


@pytest.fixture(scope="module")
def stage(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "vjepa"
    return train(tiny_videos, run_dir, "trainer.max_steps=100")


def test_the_first_step_and_every_hundredth_are_measured(stage: Path) -> None:
    rows = read_metrics(stage / "metrics.csv")
    assert [row["step"] for row in rows if "target_rank" in row] == [1, 100]
    for row in (rows[0], rows[99]):
        assert row["target_spread"] > 0
        assert row["target_rank"] > 1


def test_collapsed_targets_have_no_spread_and_one_direction(
    stage: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    # With its last norm at zero but for an offset, an encoder makes the same of every clip.
    encoder = load_encoder(stage)
    torch.nn.init.zeros_(encoder.norm.weight)
    torch.nn.init.ones_(encoder.norm.bias)
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    given = ["trainer.max_steps=1", f"checkpoint={tmp_path / 'encoder.safetensors'}"]
    (row,) = read_metrics(train(tiny_videos, tmp_path / "run", *given) / "metrics.csv")
    assert row["target_spread"] == pytest.approx(0, abs=1e-9)
    assert row["target_rank"] == pytest.approx(1, abs=1e-6)


def test_collapsed_targets_give_a_warning(
    stage: Path, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MEASURE_EVERY", 2)
    encoder = load_encoder(stage)
    torch.nn.init.zeros_(encoder.norm.weight)
    torch.nn.init.ones_(encoder.norm.bias)
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    given = ["trainer.max_steps=2", f"checkpoint={tmp_path / 'encoder.safetensors'}"]
    with pytest.warns(UserWarning, match=r"targets of step 2 have an effective rank of 1\.0"):
        train(tiny_videos, tmp_path / "run", *given)


def test_targets_that_are_not_finite_are_left_alone(
    stage: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(stage)
    torch.nn.init.constant_(encoder.norm.weight, torch.nan)
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    given = ["trainer.max_steps=1", f"checkpoint={tmp_path / 'encoder.safetensors'}"]
    with pytest.warns(UserWarning, match="the loss is nan .* at step 1"):
        student = train(tiny_videos, tmp_path / "run", *given)
    (row,) = outcome.rows(student)
    assert row["target_spread"] == row["target_rank"] == ""


def test_half_precision_is_measured_too(tiny_videos: Path, tmp_path: Path) -> None:
    half = train(tiny_videos, tmp_path, "trainer.max_steps=1", "trainer.precision=bf16-mixed")
    (row,) = read_metrics(half / "metrics.csv")
    assert row["target_spread"] > 0
    assert row["target_rank"] > 1
