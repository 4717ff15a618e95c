"""V-JEPA, V-JEPA 2 and VideoMAE as whole runs."""

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
from small_run import SMALL

from salt_plugin import load_encoder
from salt_plugin.checkpoints import load_predictor, read_card, read_predictor_card
from salt_plugin.commands.track import main as track
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run

METHODS = ("vjepa", "vjepa2", "videomae")
TINY = [*SMALL, "trainer.max_steps=5"]
COMMAND = Path(sys.executable).parent / "lightly-ssl-train"


def train(videos: Path, run_dir: Path, method: str, *overrides: str) -> dict[str, Any]:
    return run(compose([f"method={method}", f"input_dir={videos}", *TINY, *overrides]), run_dir)


@pytest.fixture(scope="module", params=METHODS)
def finished(
    request: pytest.FixtureRequest, tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    train(tiny_videos, run_dir, request.param, "method.encoders_every_n_steps=2")
    return run_dir


@pytest.fixture(scope="module")
def vjepa(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_videos, run_dir, "vjepa", "method.model.drop_path=0.3")
    return run_dir


def test_a_run_leaves_one_student(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == ["student"]
    assert not (finished / "teacher").exists()
    assert load_encoder(finished)(torch.zeros(1, 3, 8, 64, 64)).shape == (1, 64, 128)
    card = read_card(finished / "student" / "encoder.safetensors")
    assert card["method"] == finished.name
    assert card["teacher_fingerprint"] is None
    kept = {path.name for path in (finished / "student" / "encoders").glob("*.safetensors")}
    assert kept == {f"step-{step}.safetensors" for step in (2, 4, 5)}
    last = read_card(finished / "student" / "encoders" / "step-5.safetensors")
    assert last["fingerprint"] == card["fingerprint"]
    assert (finished / "figures" / "losses.png").is_file()


def test_the_ledger_has_the_parts_of_the_method(finished: Path) -> None:
    ledger = json.loads((finished / "student" / "compute.json").read_text())
    parts = {"encoder", "decoder"}
    if finished.name != "videomae":
        parts = {"teacher_forward", "encoder", "predictor", "ema"}
        weights = load_file(finished / "student" / "encoder.safetensors").values()
        assert ledger["flops"]["ema"] == 5 * 3 * sum(value.numel() for value in weights)
    assert set(ledger["flops"]) == parts


def test_collapse_is_watched_where_there_is_a_moving_target(finished: Path) -> None:
    rows = read_metrics(finished / "student" / "metrics.csv")
    watched = [row["step"] for row in rows if "target_rank" in row]
    (stage,) = json.loads((finished / "summary.json").read_text())["stages"]
    if finished.name == "videomae":
        assert watched == []
        assert stage["target_spread"] is stage["target_rank"] is None
    else:
        assert watched == [1]
        assert stage["target_spread"] == rows[0]["target_spread"] > 0
        assert stage["target_rank"] == rows[0]["target_rank"] > 1


def test_videomae_shows_its_reconstruction(finished: Path) -> None:
    drawn = (finished / "figures" / "reconstruction.png").is_file()
    assert drawn is (finished.name == "videomae")


def test_the_moving_average_is_kept_and_the_student_stays_in_the_checkpoint(vjepa: Path) -> None:
    state = torch.load(vjepa / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    state = state["state_dict"]
    kept = load_file(vjepa / "student" / "encoder.safetensors")
    for name, value in kept.items():
        assert torch.equal(value, state[f"teacher.{name}"])
    assert any(not torch.equal(value, state[f"student.{name}"]) for name, value in kept.items())
    card = read_predictor_card(vjepa / "student" / "predictor.safetensors")
    fingerprint = read_card(vjepa / "student" / "encoder.safetensors")["fingerprint"]
    assert card["encoder_fingerprint"] == fingerprint
    predictor = load_predictor(vjepa)
    assert torch.equal(predictor.predictor_proj.weight, state["predictor.predictor_proj.weight"])


def test_what_was_trained_is_kept_beside_its_average(vjepa: Path) -> None:
    state = torch.load(vjepa / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in load_file(vjepa / "student" / "online.safetensors").items():
        assert torch.equal(value, state["state_dict"][f"student.{name}"])
    online = vjepa / "student" / "online.safetensors"
    clip = torch.zeros(1, 3, 8, 64, 64)
    assert not torch.equal(load_encoder(online)(clip), load_encoder(vjepa)(clip))
    bills = [
        read_card(file)["compute"]["bill"]
        for file in (online, online.with_name("encoder.safetensors"))
    ]
    assert bills[0] == bills[1]


@pytest.mark.parametrize("step", [4, 5])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    vjepa: Path, tiny_videos: Path, tmp_path: Path, step: int
) -> None:
    overrides = ["method.model.drop_path=0.3", "method.checkpoint.every_n_steps=2"]
    with power_failure(step):
        train(tiny_videos, tmp_path, "vjepa", *overrides)
    train(tiny_videos, tmp_path, "vjepa", *overrides)
    outcome.require_same(vjepa, tmp_path, "student")
    saved = [outcome.checkpoint(root / "student") for root in (vjepa, tmp_path)]
    assert outcome.equal(*saved)


def test_vjepa2_keeps_its_rate_from_warm_up_to_cool_down(tiny_videos: Path, tmp_path: Path) -> None:
    few = ["method.optim.max_warmup_share=0.4", "method.optim.cooldown_share=0.2"]
    train(tiny_videos, tmp_path, "vjepa2", *few)
    rows = read_metrics(tmp_path / "student" / "metrics.csv")
    start, rate = 0.19 * 5.25e-4, 5.25e-4
    expected = [(start + rate) / 2, rate, rate, rate, 0.202 * rate]
    assert [row["lr"] for row in rows] == pytest.approx(expected)
    assert [row["weight_decay"] for row in rows] == pytest.approx([0.04] * 5)


def test_a_run_is_tracked_but_several_are_not_ranked(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_videos, tmp_path / "run", "vjepa", "method.encoders_every_n_steps=2")
    lists = ["--train", str(tiny_videos), "--test", str(tiny_videos), "--protocol", "knn"]
    track([str(tmp_path / "run"), *lists, "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["stage"] == "student"
    assert [point["step"] for point in result["points"]] == [2, 4, 5]
    with pytest.raises(ConfigError, match="a moving average of its own encoder"):
        track([str(tmp_path / "run"), str(tmp_path / "run")])


def test_a_budget_ends_a_baseline_at_a_step_that_fits(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    spent = json.loads((finished / "student" / "compute.json").read_text())["total_flops"]
    overrides = ["trainer.max_steps=240000", f"compute.budget={0.8 * spent}"]
    summary = train(tiny_videos, tmp_path, finished.name, *overrides)
    rows = read_metrics(tmp_path / "student" / "metrics.csv")
    assert 0.5 * spent < rows[-1]["flops"] <= 0.8 * spent
    assert summary["bill"]["total"] == rows[-1]["flops"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [pytest.param("vjepa", marks=pytest.mark.release), "vjepa2", "videomae"]
)
def test_the_hosts_command_trains_on_real_video(
    shared_videos: Path, tmp_path: Path, method: str
) -> None:
    videos = shared_videos / "ut_interaction"
    if not videos.is_dir():
        pytest.skip(f"no real videos at {videos}")
    small = [*TINY, "loader.batch_size=2", "trainer.max_steps=3"]
    command = [COMMAND, f"method={method}", f"input_dir={videos}", *small]
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
    assert load_encoder(tmp_path)(torch.zeros(1, 3, 8, 64, 64)).shape == (1, 64, 128)
