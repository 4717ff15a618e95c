"""LeVJEPA as whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import power_failure
from safetensors.torch import load_file
from small_run import TINY

from salt_plugin import load_encoder
from salt_plugin.checkpoints import read_card
from salt_plugin.commands.track import main as track
from salt_plugin.compute.cost import encoder_parameters
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run

COMMAND = Path(sys.executable).parent / "lightly-ssl-train"
VIEWS = ["method=levjepa", "method.transform.local_views=2", "method.masks.drop=0.5"]
SMALL = [*TINY, *VIEWS, "method.model.patch_size=8", "method.projector.hidden_dim=64"]
FIVE = [*SMALL, "loader.batch_size=4", "trainer.max_steps=5", "method.model.drop_path=0.3"]


def train(videos: Path, run_dir: Path, *overrides: str) -> dict[str, Any]:
    return run(compose([*FIVE, f"input_dir={videos}", *overrides]), run_dir)


@pytest.fixture(scope="module")
def finished(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_videos, run_dir, "method.encoders_every_n_steps=2")
    return run_dir


def test_a_run_leaves_the_moving_average(finished: Path) -> None:
    (stage,) = json.loads((finished / "summary.json").read_text())["stages"]
    assert stage["stage"] == "student"
    encoder = load_encoder(finished)
    assert (encoder.shape.cls_token, encoder.shape.block_causal) == (True, True)
    assert encoder(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 1 + 4 * 16, 128)
    state = outcome.checkpoint(finished / "student")["state_dict"]
    kept = load_file(finished / "student" / "encoder.safetensors")
    for name, value in kept.items():
        assert torch.equal(value, state[f"ema.{name}"])
    assert any(not torch.equal(value, state[f"encoder.{name}"]) for name, value in kept.items())
    names = {path.name for path in (finished / "student" / "encoders").glob("*.safetensors")}
    assert names == {f"step-{step}.safetensors" for step in (2, 4, 5)}


def test_the_ledger_has_its_parts_and_prices_the_tokens_that_are_kept(finished: Path) -> None:
    ledger = json.loads((finished / "student" / "compute.json").read_text())
    assert set(ledger["flops"]) == {"encoder", "projector", "ema"}
    assert set(ledger["bill"]["parts"]) == {"student", "projector", "ema"}
    shape = load_encoder(finished).shape
    assert ledger["flops"]["ema"] == 5 * 3 * encoder_parameters(shape)
    rows = read_metrics(finished / "student" / "metrics.csv")
    assert [row["context_tokens"] for row in rows] == [32 + 2 * 8] * 5
    assert [row["target_tokens"] for row in rows] == [0] * 5
    assert all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize("step", [4, 5])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    finished: Path, tiny_videos: Path, tmp_path: Path, step: int
) -> None:
    overrides = ["method.encoders_every_n_steps=2", "method.checkpoint.every_n_steps=2"]
    with power_failure(step):
        train(tiny_videos, tmp_path, *overrides)
    train(tiny_videos, tmp_path, *overrides)
    outcome.require_same(finished, tmp_path, "student")
    saved = [outcome.checkpoint(root / "student") for root in (finished, tmp_path)]
    assert outcome.equal(*saved)


def test_micro_batches_and_options_train(tiny_videos: Path, tmp_path: Path) -> None:
    options = ["method.model.tubelet_size=2", "method.model.block_causal=false"]
    overrides = [*options, "loader.batch_size=2", "method.global_batch_size=3", "method.ema=0"]
    train(tiny_videos, tmp_path, *overrides, "method.model.activation_checkpointing=true")
    state = outcome.checkpoint(tmp_path / "student")["state_dict"]
    for name, value in load_file(tmp_path / "student" / "encoder.safetensors").items():
        assert torch.equal(value, state[f"encoder.{name}"])
    assert load_encoder(tmp_path).shape.tubelet_size == 2


def test_a_run_is_tracked_but_several_are_not_ranked(
    finished: Path, tiny_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ["--train", str(tiny_videos), "--test", str(tiny_videos), "--protocol", "knn"]
    track([str(finished), *lists, "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [point["step"] for point in result["points"]] == [2, 4, 5]
    with pytest.raises(ConfigError, match="whose loss is a statistic of its own batch"):
        track([str(finished), str(finished)])


def test_it_teaches_a_salt_student(finished: Path, tiny_videos: Path, tmp_path: Path) -> None:
    overrides = [*TINY, "method=salt", f"input_dir={tiny_videos}", "trainer.max_steps=2"]
    of_teacher = [f"method.teacher.path={finished}", "method.model.patch_size=8"]
    run(compose([*overrides, *of_teacher, "method.model.tubelet_size=1"]), tmp_path)
    card = read_card(tmp_path / "student" / "encoder.safetensors")
    assert "cls_token" not in card["shape"]
    assert card["compute"]["flops"]["teacher_forward"] > 0


def test_two_processes_of_single_clips_are_refused(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salt_plugin.training.execution.devices", lambda config: 2)
    with pytest.raises(ConfigError, match=r"loader\.batch_size=1: expected at least 2 under levj"):
        train(tiny_videos, tmp_path, "loader.batch_size=1", "method.global_batch_size=3")


@pytest.mark.slow
def test_the_hosts_command_trains_on_real_video(shared_videos: Path, tmp_path: Path) -> None:
    videos = shared_videos / "grid_mouth" / "clips"
    if not videos.is_dir():
        pytest.skip(f"no real videos at {videos}")
    command = [COMMAND, f"input_dir={videos}", *SMALL, "loader.batch_size=4", "trainer.max_steps=3"]
    done = subprocess.run(
        [*map(str, command), f"hydra.run.dir={tmp_path}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = read_metrics(tmp_path / "student" / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert load_encoder(tmp_path)(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 65, 128)
