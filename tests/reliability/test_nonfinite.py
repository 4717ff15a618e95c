"""Steps that are not finite change nothing, are listed, and end a run where they go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import spoilt
from small_run import TINY
from torch.optim.optimizer import register_optimizer_step_post_hook

from salt_plugin.checkpoints import read_card
from salt_plugin.config import compose
from salt_plugin.errors import SaltError
from salt_plugin.train import run

SMALL = [*TINY, "trainer.max_steps=8", "method.checkpoint.every_n_steps=2"]


def train(videos: Path, run_dir: Path, *overrides: str, method: str = "pixel_teacher") -> None:
    run(compose([f"method={method}", f"input_dir={videos}", *SMALL, *overrides]), run_dir)


def listed(stage: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((stage / "nonfinite.json").read_text())["steps"]
    return entries


@pytest.mark.parametrize("how", ["loss", "gradients"])
@pytest.mark.parametrize(("method", "name"), [("pixel_teacher", "teacher"), ("vjepa2", "student")])
def test_a_step_that_is_not_finite_is_left_out_and_listed(
    tiny_videos: Path, tmp_path: Path, method: str, name: str, how: str
) -> None:
    optimizers: dict[int, torch.optim.Optimizer] = {}
    hook = register_optimizer_step_post_hook(lambda one, *_: optimizers.update({id(one): one}))
    with spoilt({2}, how), pytest.warns(UserWarning, match="at step 2, 1 such in a row; its upd"):
        train(tiny_videos, tmp_path, "trainer.max_steps=3", method=method)
    hook.remove()
    (optimizer,) = optimizers.values()
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}
    stage = tmp_path / name
    kept = outcome.tensors(outcome.checkpoint(stage)).values()
    assert all(tensor.isfinite().all() for tensor in kept)
    (entry,) = listed(stage)
    assert entry["step"] == 2
    assert len(entry["paths"]) == 2
    assert all(Path(path).is_file() for path in entry["paths"])
    assert outcome.steps(stage) == [1, 2, 3]
    assert outcome.saved_step(stage) == 3


def test_the_weights_are_those_of_before(tiny_videos: Path, tmp_path: Path) -> None:
    kept = ["method.encoders_every_n_steps=1", "trainer.max_steps=7"]
    with spoilt({3, 4, 5, 6}, "gradients"), pytest.warns(UserWarning, match="4 such in a row"):
        train(tiny_videos, tmp_path, *kept)
    encoders = tmp_path / "teacher" / "encoders"
    prints = [
        read_card(encoders / f"step-{step}.safetensors")["fingerprint"] for step in range(1, 8)
    ]
    assert prints[1] == prints[2] == prints[3] == prints[4] == prints[5]
    assert len(set(prints)) == 3


def test_too_many_in_a_row_end_the_run_which_goes_on_from_before(
    tiny_videos: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    three = "method.max_nonfinite_steps=3"
    with spoilt({1, 4, 5, 6}):
        train(tiny_videos, whole)
        with pytest.raises(SaltError, match=r"is inf .*nan at step 6, 3 such in a row") as error:
            train(tiny_videos, stopped, three)
        found = listed(stopped / "teacher")
        assert [entry["step"] for entry in found] == [1, 4, 5, 6]
        for part in (*found[-1]["paths"], "nonfinite.json", "method.max_nonfinite_steps"):
            assert part in str(error.value)
        # Nothing was saved between steps that were not finite.
        assert outcome.saved_step(stopped / "teacher") == 2
        with pytest.raises(SaltError, match="at step 6, 3 such in a row"):
            train(tiny_videos, stopped, three)
        assert listed(stopped / "teacher") == found

        train(tiny_videos, stopped, "method.max_nonfinite_steps=4")
    assert listed(stopped / "teacher") == listed(whole / "teacher")
    outcome.require_same(whole, stopped, "teacher")


def test_a_checkpoint_that_was_put_off_is_written_at_the_next_finite_step(
    tiny_videos: Path, tmp_path: Path
) -> None:
    with spoilt({2, 4}, "gradients", "student"):
        keys = ["method.teacher.max_steps=2", "trainer.max_steps=5"]
        train(tiny_videos, tmp_path, *keys, method="salt")
    assert outcome.saved_step(tmp_path / "student") == 5
    assert outcome.saved_step(tmp_path / "student", "previous.ckpt") == 3
    assert not (tmp_path / "teacher" / "nonfinite.json").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="float16 needs a GPU")
def test_what_a_gradient_scaler_leaves_out_by_design_does_not_count(
    tiny_videos: Path, tmp_path: Path
) -> None:
    half = ["trainer.precision=16-mixed", "trainer.max_steps=3"]
    with spoilt({2}, "gradients"):
        train(tiny_videos, tmp_path / "scaled", *half)
    assert not (tmp_path / "scaled" / "teacher" / "nonfinite.json").exists()
    with spoilt({2}, "loss"):
        train(tiny_videos, tmp_path / "infinite", *half)
    assert [entry["step"] for entry in listed(tmp_path / "infinite" / "teacher")] == [2]
