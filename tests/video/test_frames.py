"""Folders of frames, and numbered images, as videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from salt_plugin.cli import _main as salt
from salt_plugin.data import (
    ClipSampler,
    SampleKey,
    StepBatchSampler,
    VideoDataset,
    VideoReadError,
    open_video,
    read_inputs,
)
from salt_plugin.evaluation.metadata import metadata
from salt_plugin.transforms import SALTTransform


def _grey(frame: torch.Tensor) -> int:
    return int(frame.float().mean())


def write_frames(folder: Path, count: int, name: str = "{:06d}.png", first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.full((24, 32, 3), 5 * number, np.uint8)
        Image.fromarray(pixels).save(folder / name.format(first + number))
    return folder


@pytest.mark.parametrize(
    ("name", "path"),
    [("{:06d}.png", ""), ("{:06d}.png", "/%06d.png"), ("img_{}.png", ""), ("img_{}.png", "/")],
)
def test_frames_are_those_of_the_files_in_the_order_of_their_numbers(
    tmp_path: Path, name: str, path: str
) -> None:
    folder = write_frames(tmp_path / "clip.mp4", 12, name, first=1)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("of the recording")
    reader = open_video(f"{folder}{path}")
    assert len(reader) == 12
    assert reader.size == (24, 32)
    assert reader.times.tolist() == [n / 25 for n in range(12)]
    frames = reader.frames(np.array([11, 2, 2, 0]))
    assert frames.shape == (4, 3, 24, 32)
    assert frames.dtype == torch.uint8
    assert [_grey(one) for one in frames] == [55, 10, 10, 0]


def test_a_clip_opens_its_own_frames_alone(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 9)
    (folder / "000004.png").write_bytes(b"no image")
    reader = open_video(str(folder))
    assert _grey(reader.frames(np.array([8]))[0]) == 40
    with pytest.raises(
        VideoReadError, match=r"no image of the formats JPEG, PNG, WEBP, BMP \(frame 4\)"
    ):
        reader.frames(np.array([3, 4]))


def test_other_sizes_are_scaled_to_the_first(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 2)
    Image.new("RGB", (64, 48), (7, 7, 7)).save(folder / "000002.png")
    assert open_video(str(folder)).frames(np.array([2, 0])).unique().tolist() == [0, 7]


def test_the_rate_of_a_folder(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 4)
    about = folder / "clip.json"
    about.write_text('{"fps": 10}')
    assert open_video(f"{folder}/%06d.png").times.tolist() == [0.0, 0.1, 0.2, 0.3]
    about.write_text('{"times": [0, 1, 3, 4.5]}')
    assert open_video(str(folder)).times.tolist() == [0, 1, 3, 4.5]
    for text in ('{"fps": -1}', '{"fps": NaN}', '{"times": [0, 1]}', '{"fps": "x"}', "[", "7"):
        about.write_text(text)
        with pytest.raises(VideoReadError, match=r"clip\.json"):
            open_video(str(folder))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 5)
    (folder / "000003.png").unlink()
    with pytest.raises(VideoReadError, match=r"an image is missing, or there twice: 2 precedes 4"):
        open_video(f"{folder}/%06d.png")
    with pytest.raises(VideoReadError, match=r"no images of this name: %04d\.jpg"):
        open_video(f"{folder}/%04d.jpg")
    with pytest.raises(VideoReadError, match="no folder: No such file"):
        open_video(f"{tmp_path}/absent/%06d.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoReadError, match=r"holds no images$"):
        open_video(str(tmp_path / "empty"))


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    """A list of four folders of frames with labels, and one of two images without."""
    lines = []
    for number, path in enumerate(("a", "b/", "c/%06d.png", "d/%06d.png")):
        write_frames(tmp_path / path.split("/")[0], 8 + number)
        lines.append(f"{path} {number % 2}\n")
    (tmp_path / "frames.txt").write_text("".join(lines))
    Image.new("RGB", (32, 24), (200, 200, 200)).save(tmp_path / "x.jpg")
    Image.new("RGB", (24, 32), (210, 210, 210)).save(tmp_path / "y.png")
    (tmp_path / "images.csv").write_text("x.jpg\ny.png\n")
    return tmp_path / "frames.txt", tmp_path / "images.csv"


def test_lists_name_frames_and_images_that_are_weighed(lists: tuple[Path, Path]) -> None:
    videos = read_inputs(list(map(str, lists)))
    assert videos.labels == [0, 1, 0, 1, -1, -1]
    assert videos.source == [0] * 4 + [1] * 2
    dataset = VideoDataset(videos, ClipSampler(4, step=2), SALTTransform(16), seed=3)
    keys = [
        SampleKey(*key)
        for batch in StepBatchSampler(6, 8, 8, 10, 3, source=videos.source, weights=[3, 1])
        for key in batch
    ]
    items = [dataset[key] for key in keys]
    assert not any(item.skipped for item in items)
    images = [item for item, key in zip(items, keys, strict=True) if key.index >= 4]
    assert 10 < len(images) < 30
    assert all((item.clip == item.clip[:, :1]).all() for item in images)
    again = [dataset[key] for key in keys[40:]]
    assert all(torch.equal(a.clip, b.clip) for a, b in zip(items[40:], again, strict=True))


def test_data_check_of_frames_and_images(
    lists: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, _ = lists
    shutil.copytree(tmp_path / "c", tmp_path / "copy")
    bad = write_frames(tmp_path / "bad", 4)
    (bad / "000002.png").write_bytes((bad / "000002.png").read_bytes()[:60])
    with frames.open("a") as file:
        file.write("copy 0\nbad 0\nx.jpg 1\n")
    clean = tmp_path / "clean.csv"
    salt(["data", "check", str(frames), "--clean", str(clean), "--workers", "1", "--json"])
    found = json.loads(capsys.readouterr().out)["verdicts"]
    assert [one["frames"] for one in found] == [8, 9, 10, 11, 10, None, 1]
    assert found[4]["copy_of"] == f"{tmp_path}/c/%06d.png"
    assert "frame 2" in found[5]["reason"]
    assert found[2]["height"] == 24
    assert found[2]["seconds"] == pytest.approx(0.4)
    assert len(read_inputs(str(clean)).paths) == 6


def test_metadata_of_frames_and_images(lists: tuple[Path, Path], tmp_path: Path) -> None:
    rows = metadata([f"{tmp_path}/c/%06d.png", f"{tmp_path}/x.jpg"])
    assert rows[0].tolist() == pytest.approx([0, 25, 10, 32, 24, 0.4])
    assert rows[1, 2:].tolist() == [1, 32, 24, 0]
