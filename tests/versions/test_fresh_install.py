"""What has to work with every Python and every release allowed; `make test-versions` runs it.

It tests the installed package and needs nothing but pytest. Videos are made here.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import timm
import torch
from small_run import TINY
from video_kinds import KINDS, numbers

from salt_plugin.checkpoints import load_head
from salt_plugin.data import ClipSampler, StepBatchSampler, VideoDataset, read_inputs
from salt_plugin.data.loader import ClipLoader
from salt_plugin.data.sources import require_readable
from salt_plugin.transforms import SALTTransform
from salt_plugin.video.opening import open_video

pytestmark = pytest.mark.release

INDICES = np.array([50, 3, 13, 12, 11])
BIN = Path(sys.executable).parent
RED, GREEN = (200, 30, 40), (20, 150, 60)


@pytest.mark.parametrize("name", KINDS)
def test_pyav_reads_the_frames_asked_for(kinds: Path, name: str) -> None:
    assert numbers(open_video(str(kinds / name)).frames(INDICES)) == INDICES.tolist()


@pytest.mark.parametrize("name", ["closed.mp4", "plain.avi", "vp9.webm"])
def test_decord_reads_the_frames_asked_for(kinds: Path, name: str) -> None:
    pytest.importorskip("decord")
    frames = open_video(str(kinds / name), "decord").frames(INDICES)
    assert numbers(frames) == INDICES.tolist()


@pytest.mark.parametrize("colours", ["bt709", "smpte170m"])
def test_colours_are_those_of_the_standard_that_the_file_names(
    tmp_path: Path, colours: str
) -> None:
    path = tmp_path / "colours.mp4"
    _write_tagged(path, colours)
    frame = open_video(str(path)).frames(np.array([0]))[0].float()
    means = torch.stack([frame[:, :, :24].mean((1, 2)), frame[:, :, 40:].mean((1, 2))])
    torch.testing.assert_close(means, torch.tensor([RED, GREEN]).float(), atol=4, rtol=0)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_give_what_one_process_gives(tiny_videos: Path, method: str) -> None:
    videos = read_inputs(str(tiny_videos))
    require_readable(videos)  # converts a frame here, before workers are forked
    dataset = VideoDataset(videos, ClipSampler(4, step=1), SALTTransform(32), seed=0, timeout=30)
    loader = partial(
        ClipLoader,
        dataset,
        stall=120,
        key="stall",
        batch_sampler=StepBatchSampler(
            len(videos.paths), clips=3, batch_size=3, total_steps=4, seed=0
        ),
        collate_fn=list,
    )
    alone = [item.clip for batch in loader(workers=0) for item in batch]
    workers = loader(workers=2, multiprocessing_context=method)
    for one, other in zip(alone, [item.clip for batch in workers for item in batch], strict=True):
        assert torch.equal(one, other)


def test_commands_train_and_probe(tiny_videos: Path, tmp_path: Path) -> None:
    run = _runner(tmp_path)
    steps = ["method.teacher.max_steps=2", "trainer.max_steps=3", "loader.num_workers=2"]
    out = tmp_path / "run"
    run(
        "lightly-ssl-train",
        "method=salt",
        *TINY,
        *steps,
        f"input_dir={tiny_videos}",
        f"hydra.run.dir={out}",
    )
    data = ["--train", str(tiny_videos), "--test", str(tiny_videos), "--workers", "2"]
    clip = ["--frames", "4", "--size", "32", "--step", "1"]
    kept = ["--cache", str(tmp_path / "cache"), "--figures", str(tmp_path / "figures"), "--json"]
    encoder = str(out / "student" / "encoder.safetensors")
    table = run("salt", "probe", encoder, *data, *clip, *kept, "--grid", "fast", "--epochs", "1")
    assert {"knn", "linear", "attentive"} <= json.loads(table.splitlines()[-1]).keys()
    assert list((tmp_path / "figures").glob("*.png"))

    probe = tmp_path / "figures" / "attentive.safetensors"
    video = str(tiny_videos / "ant" / "0.mp4")
    features = ["--pool", f"attentive:{probe}", "--out", str(tmp_path / "features.npz")]
    run("salt", "features", str(out), video, "--window", "4", *features)
    assert np.load(tmp_path / "features.npz")["features"].shape == (3, 128)
    run("salt", "export", str(out), "--format", "timm")
    weights = out / "timm" / "model.safetensors"
    model = timm.create_model("salt_vit_nano", checkpoint_path=weights, num_classes=2)
    assert model(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 2)
    labels = ["method=finetune", f"checkpoint={out}", "trainer.max_steps=2", "loader.batch_size=2"]
    labels += [f"input_dir={tiny_videos}", f"hydra.run.dir={tmp_path / 'fine'}"]
    run("lightly-ssl-train", *labels, "loader.num_workers=0", "trainer.precision=32")
    assert load_head(tmp_path / "fine").names == ["ant", "bee"]


def _runner(folder: Path) -> Callable[..., str]:
    def run(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / command, *arguments], cwd=folder, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def _write_tagged(path: Path, colours: str) -> None:
    """Writes red beside green, converted to YUV here, by the formulas of the standards."""
    red, blue = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}[colours]
    rgb = np.array([RED, GREEN]) / 255
    luma = rgb @ [red, 1 - red - blue, blue]
    cb, cr = ((rgb[:, 2] - luma) / (2 - 2 * blue), (rgb[:, 0] - luma) / (2 - 2 * red))
    halves = np.rint(np.stack([16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr])).astype(np.uint8)
    frame = av.VideoFrame(64, 64, "yuv420p")
    for plane, (left, right), side in zip(frame.planes, halves, (64, 32, 32), strict=True):
        row = np.repeat(np.array([left, right], dtype=np.uint8), side // 2)
        plane.update(np.tile(np.pad(row, (0, plane.line_size - side)), (side, 1)).tobytes())
    with av.open(str(path), "w") as container:
        options = {"qp": "0", "colormatrix": colours, "colorprim": colours, "transfer": colours}
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        parameters = ":".join(f"{key}={value}" for key, value in options.items())
        stream.options = {"x264-params": parameters}
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
