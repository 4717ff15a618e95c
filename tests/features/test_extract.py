"""`salt features` and `salt_plugin.embed`, against each window by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

import salt_plugin
from salt_plugin.checkpoints import save_encoder
from salt_plugin.commands.features import main
from salt_plugin.data import open_video
from salt_plugin.data.demo import write_video
from salt_plugin.errors import CheckpointError, ConfigError, DataError
from salt_plugin.evaluation.probe_file import load_probe, save_probe
from salt_plugin.features import window_data
from salt_plugin.features.embedding import (
    Extraction,
    FeatureSettings,
    list_videos,
    open_extraction,
)
from salt_plugin.features.extract import extract
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.models.attentive import AttentiveProbe

CARD = {"frames": 4, "size": 16, "step": 2}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = VideoEncoder(EncoderShape.named("vit_nano", patch_size=8), init_std=0.06)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_encoder(made, path, {"input": CARD})
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a long video, ten short ones and an image."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number, length in enumerate([150, 3, *range(8, 17)]):
        frames = rng.integers(0, 256, (length, 24, 32, 3), dtype=np.uint8)
        write_video(folder / f"{number:02}.mp4", frames, fps=10)
    Image.fromarray(frames[0]).save(folder / "image.png")
    return folder


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of five windows, groups of four videos: a list of twelve has several of both."""
    monkeypatch.setattr(window_data, "GROUP", 4)
    monkeypatch.setattr("salt_plugin.features.feature_parts.GROUP", 4)
    monkeypatch.setattr("salt_plugin.features.embedding.PART_WINDOWS", 5)


def features(encoder: Path, videos: Path, out: Path, *options: str) -> None:
    settings = ["--stride", "4", "--batch-size", "2", "--precision", "32", "--workers", "0"]
    main([str(encoder), str(videos), "--out", str(out), *settings, *options])


def open_(encoder: Path, videos: Path) -> Extraction:
    settings = FeatureSettings(stride=4, batch_size=2, workers=0, precision="32")
    return open_extraction(encoder, list_videos(videos), settings, "cpu")


def columns(out: Path) -> dict[str, np.ndarray]:
    with np.load(out) as arrays:
        return {name: arrays[name] for name in ("features", "path", "start", "end")}


def test_a_row_is_the_feature_of_its_window(encoder: Path, videos: Path, tmp_path: Path) -> None:
    features(encoder, videos, tmp_path / "a.npz")
    found = columns(tmp_path / "a.npz")
    loaded = salt_plugin.load_encoder(encoder)
    paths, starts, ends, rows = [], [], [], []
    for path in sorted(videos.iterdir()):
        reader = open_video(str(path))
        for first in range(0, max(1, len(reader) - 7), 4):
            clip = reader.frames(np.minimum(first + np.arange(0, 8, 2), len(reader) - 1))
            rows.append(loaded.embed(clip))
            paths.append(str(path))
            starts.append(first / 10)
            ends.append(min(first + 8, len(reader)) / 10 if path.suffix == ".mp4" else 0)
    assert len(paths) > 45
    assert found["path"].tolist() == paths
    np.testing.assert_allclose(found["start"], starts)
    np.testing.assert_allclose(found["end"], ends)
    np.testing.assert_allclose(found["features"], torch.stack(rows), atol=1e-5)
    # In Python, of a file, a list of files and an encoder that is there already.
    loaded.train()
    for given in (str(encoder), loaded):
        same = salt_plugin.embed(videos, given, stride=4)
        np.testing.assert_allclose(same.features, found["features"], atol=1e-5)
        assert same.paths == paths
    assert loaded.training
    assert loaded.norm.weight.requires_grad
    one = salt_plugin.embed(videos / "00.mp4", encoder, window="1s", stride="0.5s")
    assert one.features.shape == (29, 128)
    assert one.starts[:3].tolist() == [0, 0.5, 1]


def test_two_processes_give_the_file_of_one(
    encoder: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.npz", "one.parquet", "one"):
        features(encoder, videos, tmp_path / name)
    for rank in ("1", "0"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        for name in ("two.npz", "two.parquet", "two"):
            assert not (tmp_path / name).is_file()
            features(encoder, videos, tmp_path / name)
    for name in ("npz", "parquet"):
        one, two = tmp_path / f"one.{name}", tmp_path / f"two.{name}"
        assert one.read_bytes() == two.read_bytes()
        assert not (tmp_path / f"two.{name}.parts").exists()
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len(names) > 9
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_are_a_partition_whatever_their_number(
    encoder: Path, videos: Path, workers: int, tmp_path: Path
) -> None:
    made = open_(encoder, videos)
    made.workers = workers
    for size in (1, 3) if workers else (1, 2, 7):
        seen = [
            (batch.part, row)
            for rank in range(size)
            for batch, _ in made.batches(rank=rank, size=size)
            for row in batch.rows
        ]
        assert len(seen) == len({*seen}) == len(salt_plugin.embed(videos, encoder, stride=4).paths)


@pytest.mark.parametrize("ends", [1, 2, 9, 20])
def test_a_run_that_was_killed_goes_on(
    encoder: Path, videos: Path, tmp_path: Path, ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salt_plugin.features.feature_parts.SAVE_SECONDS", 0)
    whole, out = tmp_path / "whole.npz", tmp_path / "killed.npz"
    assert extract(open_(encoder, videos), whole) is not None
    left = [ends]

    def killed(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(open_(encoder, videos), out, progress=killed)
    assert not out.exists()
    again = open_(encoder, videos)
    calls = []
    again.encoder.register_forward_hook(lambda *_: calls.append(1))
    extract(again, out)
    assert out.read_bytes() == whole.read_bytes()
    total = sum(1 for batch, _ in open_(encoder, videos).batches() if batch.rows)
    assert len(calls) <= total - ends + 1
    extract(again, whole)  # it is there, and nothing is made again
    assert len(calls) <= total - ends + 1


def test_parquet_and_parts_hold_what_npz_holds(encoder: Path, videos: Path, tmp_path: Path) -> None:
    features(encoder, videos, tmp_path / "a.npz", "--layers", "0,-1")
    features(encoder, videos, tmp_path / "a.parquet", "--layers", "0,-1")
    features(encoder, videos, tmp_path / "parts", "--layers", "0,-1")
    expected = columns(tmp_path / "a.npz")
    assert expected["features"].shape[1:] == (2, 128)
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    parts = [columns(path) for path in sorted((tmp_path / "parts").glob("*.npz"))]
    for name, values in expected.items():
        read = np.array(table[name], values.dtype).reshape(values.shape)
        assert (read == values).all()
        assert (np.concatenate([part[name] for part in parts]) == values).all()


def test_pooling_and_layers_are_of_the_tokens(encoder: Path, videos: Path, tmp_path: Path) -> None:
    video = videos / "00.mp4"
    tokens = salt_plugin.embed(video, encoder, pool="none").features
    assert tokens.shape == (18, 8, 128)
    assert tokens.dtype == np.float16
    both = salt_plugin.embed(video, encoder, pool="none", layers=(-1, 3, 0)).features
    assert (both[:, 0] == tokens).all()
    assert (both[:, 1] == tokens).all()
    assert not np.allclose(both[:, 2], tokens, atol=0.1)
    mean = salt_plugin.embed(video, encoder, layers=(3,)).features
    np.testing.assert_allclose(mean[:, 0], tokens.astype(np.float32).mean(1), atol=1e-3)
    # The first layer, by itself.
    loaded = salt_plugin.load_encoder(encoder)
    clip = loaded.preprocess(open_video(str(video)).frames(np.arange(0, 8, 2)))
    loaded.blocks = type(loaded.blocks)([loaded.blocks[0]])
    first = loaded(clip)[0].detach().numpy()
    np.testing.assert_allclose(both[0, 2], first, atol=2e-3)

    probe = AttentiveProbe(128, 5, num_heads=4, depth=2)
    save_probe(probe, tmp_path / "probe.safetensors")
    loaded_probe = load_probe(tmp_path / "probe.safetensors")
    pooled = salt_plugin.embed(video, encoder, pool=f"attentive:{tmp_path}/probe.safetensors")
    expected = loaded_probe.pooler(torch.from_numpy(tokens).float()).detach()
    np.testing.assert_allclose(pooled.features, expected, atol=1e-2)
    with pytest.raises(CheckpointError, match="is no attentive probe"):
        load_probe(encoder)


def test_files_that_cannot_be_read_are_named_and_the_others_written(
    encoder: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    (folder / "01.mp4").write_text("no video")
    (folder / "image.png").write_bytes(b"")
    out = tmp_path / "a.npz"
    for _ in range(2):
        with pytest.raises(DataError, match=r"lacks windows of 2 files(.|\n)*01.mp4: not a video"):
            features(encoder, folder, out)
    good = columns(out)
    assert not {path for path in good["path"].tolist() if path.endswith(("01.mp4", ".png"))}
    features(encoder, videos, tmp_path / "b.npz")
    whole = columns(tmp_path / "b.npz")
    same = np.array([not path.endswith(("01.mp4", ".png")) for path in whole["path"].tolist()])
    assert (good["start"] == whole["start"][same]).all()
    np.testing.assert_allclose(good["features"], whole["features"][same], atol=1e-5)
    with pytest.raises(DataError, match=r"cannot read video .*01\.mp4"):
        salt_plugin.embed(folder, encoder)


def test_other_features_are_not_written_over(encoder: Path, videos: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "a.parquet", "parts"):
        features(encoder, videos, tmp_path / name)
        features(encoder, videos, tmp_path / name)
        with pytest.raises(ConfigError, match=r"holds other features: window was 8, and is now 12"):
            features(encoder, videos, tmp_path / name, "--window", "12")
    (tmp_path / "b.npz").write_text("mine")
    with pytest.raises(ConfigError, match=r"b\.npz is no file of salt features"):
        features(encoder, videos, tmp_path / "b.npz")
    part = next((tmp_path / "parts").glob("*.npz"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match="is no part of features, or damaged"):
        features(encoder, videos, tmp_path / "parts")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pool", "max"], "--pool max: expected mean, none, or attentive:FILE"),
        (["--layers", "0,4"], "--layers 0,4: .* has layers 0 to 3"),
        (["--size", "20"], "--size=20: .* use 16"),
        (["--window", "2m"], "--window 2m: expected a whole number of frames"),
        (["--out", "a.csv"], "--out a.csv: expected a name ending in .npz or .parquet"),
    ],
)
def test_what_cannot_work_is_refused_first(
    encoder: Path, videos: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        features(encoder, videos, tmp_path / "a.npz", *options)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_devices_share_the_work(encoder: Path, videos: Path, tmp_path: Path) -> None:
    features(encoder, videos, tmp_path / "one.npz")
    features(encoder, videos, tmp_path / "two.npz", "--devices", "2")
    with np.load(tmp_path / "two.npz") as arrays:
        assert json.loads(str(arrays["about"]))["rows"] > 45
    one, two = columns(tmp_path / "one.npz"), columns(tmp_path / "two.npz")
    # Their parts are larger than those of this process, and so are some batches.
    np.testing.assert_allclose(one.pop("features"), two.pop("features"), atol=1e-5)
    for name, values in one.items():
        assert (values == two[name]).all()


LOADED = """
import sys, salt_plugin
rows = salt_plugin.embed(sys.argv[1], sys.argv[2], workers=0)
assert len(rows.features) and not {"timm", "torchvision", "torch._dynamo"} & sys.modules.keys()
"""
# The order of other tests is the other one.
REGISTERED = """
import importlib.util, salt_plugin.models
assert importlib.util.find_spec("timm")  # as libraries ask whether it is installed
import timm
assert timm.is_model("salt_vit_nano")
"""


def test_features_load_neither_timm_nor_torchvision_which_take_seconds(
    encoder: Path, videos: Path
) -> None:
    command = [sys.executable, "-c", LOADED, str(videos / "00.mp4"), str(encoder)]
    subprocess.run(command, check=True, timeout=120)


def test_a_video_is_read_through_without_torch(videos: Path) -> None:
    code = (
        "import sys; from salt_plugin.video.fact_cache import facts_of; "
        "assert facts_of(sys.argv[1]) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(videos / "00.mp4")], check=True, timeout=120)


@pytest.mark.slow
def test_timm_knows_the_encoders_when_it_is_imported_after_them() -> None:
    subprocess.run([sys.executable, "-c", REGISTERED], check=True, timeout=120)
