"""Whole runs from prepared collections, folders of frames, images and a server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import outcome
import pytest
from faults import power_failure
from motion import SHORT, write_encoder, write_motion
from PIL import Image
from small_run import TINY

from salt_plugin import embed
from salt_plugin.cli import _main as salt
from salt_plugin.config import compose
from salt_plugin.data.preparing import Preparation
from salt_plugin.data.sources import read_inputs
from salt_plugin.train import run
from salt_plugin.video.conversion import Conversion


@pytest.fixture(scope="module")
def frames(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "frames"
    how = Conversion("frames", 48, None)
    Preparation(read_inputs(str(tiny_videos)), out, how, 60_000, 1, 60).run(lambda _: None)
    return out


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for value in (50, 150):
        Image.new("RGB", (40, 40), (value, value, 0)).save(tmp_path / f"{value}.png")
    (tmp_path / "images.csv").write_text("50.png\n150.png\n")
    return tmp_path / "images.csv"


def train(inputs: str, run_dir: Path, *overrides: str) -> dict[str, Any]:
    steps = ["method=pixel_teacher", "trainer.max_steps=5", "method.checkpoint.every_n_steps=2"]
    return run(compose([*steps, f"input_dir={inputs}", *TINY, *overrides]), run_dir)


@pytest.mark.slow
def test_frames_of_shards_and_images_train_and_resume_alike(
    frames: Path, images: Path, tmp_path: Path
) -> None:
    inputs, weights = f"[{frames},{images}]", "method.data.weights=[2,1]"
    train(inputs, tmp_path / "whole", weights)
    with power_failure(4):
        train(inputs, tmp_path / "cut", weights)
    train(inputs, tmp_path / "cut", weights, "loader.num_workers=1")
    outcome.require_same(tmp_path / "whole", tmp_path / "cut", "teacher")
    assert outcome.skipped(tmp_path / "whole") == {}


@pytest.mark.slow
def test_frames_of_shards_are_probed_and_give_features(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = [f"--train={frames}", f"--test={frames}"]
    clip = ["--frames=4", "--size=32", "--step=1", "--workers=0", f"--cache={tmp_path}"]
    with pytest.warns(UserWarning, match="6 of 6 videos of the list test are in the list train"):
        salt(["probe", "random:vit_nano", *lists, *clip, "--protocol=knn"])
    assert "knn" in capsys.readouterr().out
    train(str(frames), tmp_path / "run")
    one = embed(read_inputs(str(frames)).paths, tmp_path / "run")
    assert len(one.paths) >= 6


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tiny_videos: Path) -> Iterator[str]:
    """The videos at a server that sends whole files alone, as that of the standard library does."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(tiny_videos))
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_run_from_a_server_is_that_from_files(
    address: str, tiny_videos: Path, tmp_path: Path
) -> None:
    names = sorted(str(path.relative_to(tiny_videos)) for path in tiny_videos.rglob("*.mp4"))
    for name, root in (("near", tiny_videos), ("far", address)):
        (tmp_path / f"{name}.csv").write_text("".join(f"{root}/{one}\n" for one in names))
        train(str(tmp_path / f"{name}.csv"), tmp_path / name)
    outcome.require_same(tmp_path / "near", tmp_path / "far", "teacher")


@pytest.mark.slow
def test_fine_tuning_from_shards_is_that_from_loose_files(tmp_path: Path) -> None:
    motion, encoder = write_motion(tmp_path), write_encoder(tmp_path)
    how = Conversion("videos", 40, None)
    for name, shards in (("loose", None), ("shards", 30_000)):
        for part, rows in (("train", 8), ("val", 4)):
            listed = (motion / f"{part}.csv").read_text().splitlines()[: 1 + rows]
            (motion / "some.csv").write_text("\n".join(listed) + "\n")
            videos = read_inputs(str(motion / "some.csv"))
            Preparation(videos, tmp_path / name / part, how, shards, 1, 60).run(lambda _: None)
        lists = [f"input_dir={tmp_path / name / 'train'}", f"method.val={tmp_path / name / 'val'}"]
        run(compose([*SHORT, *lists, f"checkpoint={encoder}"]), tmp_path / name / "run")
    assert len(list((tmp_path / "shards" / "train" / "shards").glob("*.tar"))) > 1
    runs = [tmp_path / name / "run" for name in ("loose", "shards")]
    outcome.require_same(*runs, "student")
    for name in ("accuracy.json", "head.json"):
        one, other = ((root / "student" / name).read_text() for root in runs)
        assert one == other
