"""What a run says and refuses before it trains, and how it says that it goes on."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from faults import asked_to_stop
from small_run import TINY

from salt_plugin.commands.probe import main as probe
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError, Interrupted
from salt_plugin.train import run

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def train(videos: Path, run_dir: Path, *overrides: str) -> None:
    given = ["method=pixel_teacher", *TINY, f"input_dir={videos}", "trainer.max_steps=2"]
    run(compose([*given, *overrides]), run_dir)


def test_data_model_plan_device_and_folder_are_said_a_line_each(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_videos, tmp_path / "run", "loader.batch_size=30", "trainer.gpus=0")
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()[:5])
    count = len(list(tiny_videos.rglob("*.mp4")))
    assert said["data"].startswith(f"{count} videos, ")
    assert said["data"].endswith("; fewer than the 30 clips of a step, which repeats them")
    assert re.match(
        r"pixel_teacher: vit_nano \(128 wide, 4 deep\); decoder \d+ wide, \d deep, \d+% of ",
        said["model"],
    )
    assert re.fullmatch(r"teacher 2 steps, [\d.e+]+ FLOPs", said["plan"])
    assert said["device"] == "CPU; 30 clips a step, 32"
    assert said["folder"] == str(tmp_path / "run")


@no_gpu
def test_gpus_that_are_not_there_are_said(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_videos, tmp_path, "trainer.gpus=4")
    assert "device  CPU (trainer.gpus=4, and torch sees no GPU); " in capsys.readouterr().err


@no_gpu
@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_that_a_cpu_lacks_is_said(
    supported: bool,
    tiny_videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    train(tiny_videos, tmp_path, "trainer.precision=bf16-mixed")
    slow = "" if supported else r" \(slow: .*; trainer.precision=32\)"
    assert re.search(rf"^device  CPU; .*, bf16-mixed{slow}$", capsys.readouterr().err, re.MULTILINE)


@no_gpu
@pytest.mark.parametrize("precision", ["16", "16-mixed"])
def test_float16_on_a_cpu_is_refused_before_anything_is_written(
    tiny_videos: Path, tmp_path: Path, precision: str
) -> None:
    with pytest.raises(ConfigError, match=rf"trainer.precision={precision}: .* use bf16-mixed"):
        train(tiny_videos, tmp_path / "run", f"trainer.precision={precision}")
    assert not (tmp_path / "run").exists()


@no_gpu
@pytest.mark.parametrize(
    ("device", "found"),
    [("cuda:0", "torch sees 0 GPUs"), ("tpu-1", "no device; expected such as cpu or cuda:0")],
)
def test_a_device_that_is_not_there_is_refused(tiny_videos: Path, device: str, found: str) -> None:
    lists = ["--train", str(tiny_videos), "--test", str(tiny_videos)]
    with pytest.raises(ConfigError, match=f"--device {device}: {found}"):
        probe(["random:vit_nano", *lists, "--device", device])


def test_a_stopped_run_gives_the_command_that_goes_on_and_says_from_where(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "a run (1)"
    typed = ["method=pixel_teacher", "input_dir='a b'"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/salt", *typed])
    with asked_to_stop(1, signal.SIGTERM), pytest.raises(Interrupted) as stopped:
        train(tiny_videos, run_dir)
    told = str(stopped.value).partition("saved at step 1; this goes on: ")[2]
    assert shlex.split(told) == ["salt", "train", *typed, f'hydra.run.dir="{run_dir}"']
    # A folder that was named is not named again.
    monkeypatch.setattr(sys, "argv", ["salt", *typed, "hydra.run.dir=here"])
    capsys.readouterr()
    with (
        asked_to_stop(2, signal.SIGTERM),
        pytest.raises(Interrupted, match=r"hydra\.run\.dir=here$"),
    ):
        train(tiny_videos, run_dir)
    assert "teacher goes on from step 1\n" in capsys.readouterr().out
