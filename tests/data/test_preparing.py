"""Collections that are written again, and what training sees of them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from salt_plugin.commands import data
from salt_plugin.data import open_video, read_inputs
from salt_plugin.data.preparing import Preparation
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.video.check import check_video
from salt_plugin.video.conversion import Conversion


@pytest.fixture(scope="module")
def source(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of three videos, one that is none, a folder of frames of varying times, an image."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "text.mp4").write_text("no video")
    (folder / "frames").mkdir()
    for number in range(6):
        Image.new("RGB", (90, 60), (40 * number,) * 3).save(folder / "frames" / f"{number}.png")
    (folder / "frames" / "clip.json").write_text('{"times": [0, 0.1, 0.2, 0.6, 0.7, 0.8]}')
    Image.new("RGB", (64, 48), (99, 99, 99)).save(folder / "still.png")
    names = [f"{tiny_videos}/ant/{number}.mp4" for number in range(3)]
    rows = [*names, "text.mp4", "frames", "still.png"]
    labels = ["ant", "ant", "ant", "bee", "bee", ""]
    text = "".join(f"{row},{label}\n" for row, label in zip(rows, labels, strict=True))
    (folder / "list.csv").write_text("path,label\n" + text)
    return folder / "list.csv"


def prepared(source: Path, out: Path, store: str, shards: int | None = None) -> Preparation:
    how = Conversion(store, 48, None)
    return Preparation(read_inputs(str(source)), out, how, shards, workers=1, timeout=60)


@pytest.fixture(scope="module")
def outs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("prepared")
    given = {"videos": None, "frames": None, "videos-shards": 9000, "frames-shards": 40_000}
    for name, shards in given.items():
        work = prepared(source, root / name, name.split("-")[0], shards)
        work.run(lambda _: None)
        assert [clip["reason"] is None for clip in work.clips] == [True] * 3 + [False] + [True] * 2
    return {name: root / name for name in given}


def test_what_is_written_is_what_was_there(source: Path, outs: dict[str, Path]) -> None:
    paths = [path for path in read_inputs(str(source)).paths if "text" not in path]
    for out in outs.values():
        videos = read_inputs(str(out))
        assert videos.classes == ["ant", "bee"]
        assert videos.labels == [0, 0, 0, 1, -1]
        for path, new in zip(paths, videos.paths, strict=True):
            before, after = open_video(path), open_video(new)
            assert len(after) == len(before)
            assert after.times == pytest.approx(before.times - before.times[0], abs=1e-4)
            greys = [
                video.frames(np.arange(len(video))).float().mean((1, 2, 3))
                for video in (before, after)
            ]
            assert (greys[0] - greys[1]).abs().max() < 3
            assert min(after.size) == 48


def test_shards_hold_what_single_files_do(outs: dict[str, Path]) -> None:
    for store in ("videos", "frames"):
        single, sharded = read_inputs(str(outs[store])), read_inputs(str(outs[f"{store}-shards"]))
        assert len(list((outs[f"{store}-shards"] / "shards").glob("*.tar"))) > 1
        for one, other in zip(single.paths, sharded.paths, strict=True):
            a, b = open_video(one), open_video(other)
            numbers = np.arange(len(a))
            assert a.times.tolist() == b.times.tolist()
            assert torch.equal(a.frames(numbers), b.frames(numbers))


def test_manifest_and_reasons(source: Path, outs: dict[str, Path]) -> None:
    out = outs["videos"]
    table = pq.read_table(out / "manifest.parquet").to_pylist()
    assert [row["frames"] for row in table] == [12, 16, 20, 6, 1]
    assert [row["label"] for row in table] == ["ant", "ant", "ant", "bee", None]
    assert table[0]["keyframes"] == [0]
    assert table[0]["fps"] == 10
    assert table[3]["source"] == str(source.parent / "frames")
    assert table[3]["width"] == 72
    assert table[1]["bytes"] == (out / table[1]["path"]).stat().st_size
    assert "text.mp4,not a video file that PyAV can open" in (out / "left_out.csv").read_text()
    verdict = check_video(str(out / table[2]["path"]), "pyav", 4, 0)
    assert (verdict.reason, verdict.danger, verdict.gop) == (None, None, "single")


def test_webdataset_finds_samples(outs: dict[str, Path]) -> None:
    shards = sorted((outs["frames-shards"] / "shards").glob("*.tar"))
    with tarfile.open(shards[0]) as tar:
        names = tar.getnames()
        about = json.loads(tar.extractfile("00000000.clip.json").read())
    keys = [name.split(".")[0] for name in names]
    assert names[0] == "00000000.000000.jpg"
    assert keys == sorted(keys)  # the members of a sample stand together
    assert about["fps"] == 10
    assert about["label"] == "ant"


def test_a_stopped_call_goes_on_to_the_same_files(
    source: Path, outs: dict[str, Path], tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int) -> None:
        if done in (2, 5):
            raise StoppedError

    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        prepared(source, out, "videos", 9000).run(stop)
    with pytest.raises(DataError, match="is not finished: give the same command again"):
        read_inputs(str(out))
    with (out / "journal.jsonl").open("a") as journal:
        journal.write('{"source": "to')  # torn
    with pytest.raises(ConfigError, match=r"was begun with shards=9000, not shards=None"):
        prepared(source, out, "videos")
    with pytest.raises(StoppedError):
        prepared(source, out, "videos", 9000).run(stop)
    prepared(source, out, "videos", 9000).run(lambda _: None)
    for file in outs["videos-shards"].rglob("*"):
        if file.is_file():
            assert (out / file.relative_to(outs["videos-shards"])).read_bytes() == file.read_bytes()
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        prepared(source, tmp_path, "videos")


def test_the_command_at_another_rate(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--fps=5", "--short-side=32", "--store=frames", "--shards=1GB", "--workers=1"]
    data.main(["prepare", f"{tiny_videos}/ant", str(out), *options])
    printed = capsys.readouterr().out
    assert "3 of 3 videos, 24 frames" in printed
    assert f"input_dir={out}" in printed
    videos = [open_video(path) for path in read_inputs(str(out)).paths]
    assert [len(video) for video in videos] == [6, 8, 10]
    assert videos[0].times.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    greys = videos[0].frames(np.arange(6)).float().mean((1, 2, 3))
    assert greys.tolist() == pytest.approx([20 * number for number in range(6)], abs=11)
