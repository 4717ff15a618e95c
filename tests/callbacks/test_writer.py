"""Checkpoints are what they were when they were asked for, and never keep training waiting."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from salt_plugin.callbacks import BackgroundWriter, writer


def state(step: int, value: float) -> dict[str, Any]:
    weights = torch.full((3, 2), value)
    return {"global_step": step, "state_dict": {"a": weights, "n": torch.tensor(step)}}


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


class Slow:
    """Lets `torch.save` begin when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        save = torch.save

        def waiting(content: Any, path: Path) -> None:
            assert self.go.wait(10)
            save(content, path)

        monkeypatch.setattr(writer.torch, "save", waiting)


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, path = Slow(monkeypatch), tmp_path / "last.ckpt"
    background = BackgroundWriter(0, beside=[])
    saved = state(1, 1.0)
    background.save_checkpoint(saved, path)
    assert background.busy
    assert not path.exists()
    saved["state_dict"]["a"].zero_()  # as an optimiser does, in place
    slow.go.set()
    assert background.failure() is None
    assert not background.busy
    assert load(path)["state_dict"]["a"].eq(1.0).all()
    assert background.saved_step == 1


def test_one_is_written_at_a_time_and_two_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, path = Slow(monkeypatch), tmp_path / "last.ckpt"
    background = BackgroundWriter(0, beside=[])
    background.save_checkpoint(state(1, 1.0), path)
    second = threading.Thread(target=background.save_checkpoint, args=(state(2, 2.0), path))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    slow.go.set()
    second.join(10)
    background.save_checkpoint(state(3, 3.0), path)
    background.teardown()
    assert load(path)["state_dict"]["a"].eq(3.0).all()
    assert load(tmp_path / "previous.ckpt")["state_dict"]["a"].eq(2.0).all()
    assert {file.name for file in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_tensors_that_change_their_shape_are_copied_anew(tmp_path: Path) -> None:
    background = BackgroundWriter(0, beside=[])
    for shape in ((2, 3), (4,), (2, 2, 2)):
        content = {"global_step": 1, "one": torch.randn(shape), "two": torch.randn(3)}
        background.save_checkpoint(content, tmp_path / "last.ckpt")
        assert background.failure() is None
        found = load(tmp_path / "last.ckpt")
        assert torch.equal(found["one"], content["one"])
        assert torch.equal(found["two"], content["two"])


def test_what_cannot_be_written_is_told_once_and_the_last_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    background = BackgroundWriter(0, beside=[tmp_path / "metrics.csv"])
    background.save_checkpoint(state(1, 1.0), path)
    failure = background.failure()
    assert failure is not None
    assert failure.step == 1
    assert "metrics.csv" in failure.reason
    assert background.failure() is None
    assert not path.exists()
    (tmp_path / "metrics.csv").touch()
    background.save_checkpoint(state(2, 2.0), path)
    assert background.failure() is None
    (tmp_path / "metrics.csv").unlink()
    background.save_checkpoint(state(3, 3.0), path)
    failure = background.failure()
    assert failure is not None
    assert failure.step == 3
    assert background.saved_step == load(path)["global_step"] == 2
    assert not (tmp_path / "last.tmp").exists()
