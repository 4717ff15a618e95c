"""Steps that are not finite change nothing, are listed, and end a run where they go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_run import TINY

from salt_plugin.callbacks import NonFinite, Ranks
from salt_plugin.config import compose
from salt_plugin.errors import SaltError
from salt_plugin.masks import Batch
from salt_plugin.methods import SALT, VJEPA, PixelTeacher
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run

SMALL = [*TINY, "trainer.max_steps=8", "method.checkpoint.every_n_steps=2"]


def train(videos: Path, run_dir: Path, *overrides: str, method: str = "pixel_teacher") -> None:
    run(compose([f"method={method}", f"input_dir={videos}", *SMALL, *overrides]), run_dir)


def spoil(monkeypatch: pytest.MonkeyPatch, cls: Any, steps: set[int], how: str) -> None:
    """Makes loss or gradients of steps, counted from 1, not finite."""
    original = cls.forward

    def spoilt(self: Any, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = original(self, batch)
        if batch.step + 1 not in steps:
            return loss
        if how == "loss":  # with gradients that are finite
            return loss + torch.inf
        loss.register_hook(lambda gradient: gradient * torch.nan)
        return loss

    monkeypatch.setattr(cls, "forward", spoilt)


def saved(stage: Path, name: str = "last.ckpt") -> Any:
    return torch.load(stage / "checkpoints" / name, weights_only=True)


@pytest.mark.parametrize("how", ["loss", "gradients"])
@pytest.mark.parametrize(
    ("method", "cls", "stage"),
    [("pixel_teacher", PixelTeacher, "teacher"), ("vjepa2", VJEPA, "student")],
)
def test_a_step_that_is_not_finite_is_left_out_and_listed(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    cls: Any,
    stage: str,
    how: str,
) -> None:
    train(tiny_videos, tmp_path / "two", "trainer.max_steps=2", method=method)
    spoil(monkeypatch, cls, {2}, how)
    with pytest.warns(UserWarning, match=r"at step 2, 1 such in a row; its update is left out"):
        train(tiny_videos, tmp_path / "spoilt", "trainer.max_steps=2", method=method)
    before = saved(tmp_path / "two" / stage)["optimizer_states"][0]["state"]
    after = saved(tmp_path / "spoilt" / stage)["optimizer_states"][0]["state"]
    assert {int(state["step"]) for state in before.values()} == {2}
    assert {int(state["step"]) for state in after.values()} == {1}
    spoilt = tmp_path / "spoilt" / stage
    assert all(value.isfinite().all() for value in saved(spoilt)["state_dict"].values())
    (entry,) = json.loads((spoilt / "nonfinite.json").read_text())["steps"]
    assert entry["step"] == 2
    assert len(entry["paths"]) == 2
    assert all(Path(path).is_file() for path in entry["paths"])
    assert [row["step"] for row in read_metrics(spoilt / "metrics.csv")] == [1, 2]
    assert saved(spoilt)["global_step"] == 2


def test_the_weights_are_those_of_before(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, PixelTeacher, {3, 4, 5, 6}, "gradients")
    kept = ["method.encoders_every_n_steps=1", "trainer.max_steps=7"]
    with pytest.warns(UserWarning, match="4 such in a row"):
        train(tiny_videos, tmp_path, *kept)
    encoders = tmp_path / "teacher" / "encoders"
    prints = [
        json.loads((encoders / f"step-{step}.json").read_text())["fingerprint"]
        for step in range(1, 8)
    ]
    assert prints[1] == prints[2] == prints[3] == prints[4] == prints[5]
    assert len(set(prints)) == 3


def test_too_many_in_a_row_end_the_run_which_goes_on_from_before(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    three = "method.max_nonfinite_steps=3"
    spoil(monkeypatch, PixelTeacher, {1, 4, 5, 6}, "loss")
    train(tiny_videos, whole)
    with pytest.raises(SaltError, match=r"is inf .*nan at step 6, 3 such in a row") as error:
        train(tiny_videos, stopped, three)
    listed = json.loads((stopped / "teacher" / "nonfinite.json").read_text())["steps"]
    assert [entry["step"] for entry in listed] == [1, 4, 5, 6]
    for part in (*listed[-1]["paths"], "nonfinite.json", "method.max_nonfinite_steps"):
        assert part in str(error.value)
    # Nothing was saved between steps that were not finite.
    assert saved(stopped / "teacher")["global_step"] == 2
    with pytest.raises(SaltError, match="at step 6, 3 such in a row"):
        train(tiny_videos, stopped, three)
    assert json.loads((stopped / "teacher" / "nonfinite.json").read_text())["steps"] == listed

    train(tiny_videos, stopped, "method.max_nonfinite_steps=4")
    files = [run_dir / "teacher" / "nonfinite.json" for run_dir in (whole, stopped)]
    assert files[0].read_text() == files[1].read_text()
    states = [saved(run_dir / "teacher")["state_dict"] for run_dir in (whole, stopped)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_that_was_put_off_is_written_at_the_next_finite_step(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, SALT, {2, 4}, "gradients")
    train(tiny_videos, tmp_path, "method.teacher.max_steps=2", "trainer.max_steps=5", method="salt")
    assert saved(tmp_path / "student")["global_step"] == 5
    assert saved(tmp_path / "student", "previous.ckpt")["global_step"] == 3
    assert not (tmp_path / "teacher" / "nonfinite.json").exists()


class _Scaler:
    def __init__(self, scale: float) -> None:
        self.factor = scale

    def scale(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * self.factor


@pytest.mark.parametrize(
    ("scale", "loss", "counts"),
    [(None, 1.0, 1), (65536.0, 1.0, 0), (0.5, 1.0, 1), (65536.0, float("inf"), 1)],
)
def test_what_a_gradient_scaler_leaves_out_by_design_does_not_count(
    tmp_path: Path, scale: float | None, loss: float, counts: int
) -> None:
    scaler = None if scale is None else _Scaler(scale)
    trainer: Any = SimpleNamespace(
        is_global_zero=True, global_step=1, precision_plugin=SimpleNamespace(scaler=scaler)
    )
    module: Any = SimpleNamespace(grad_norm=torch.tensor(torch.inf))
    batch = Batch(torch.zeros(1), torch.zeros(1), [], 0, paths=["a.mp4"])
    callback = NonFinite(Ranks({}), tmp_path / "nonfinite.json", 5, 0, 0)
    callback.on_train_start(trainer, module)
    callback.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, batch, 0)
    assert callback.settle() == counts
