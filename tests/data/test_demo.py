from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from salt_plugin.data.demo import DIRECTIONS, DemoSpec, make_demo, render
from salt_plugin.data.digits import scan_split
from salt_plugin.data.sources import read_inputs
from salt_plugin.errors import CacheError, ConfigError
from salt_plugin.video.opening import open_video

# Without flicker, so that what is drawn can be measured pixel by pixel.
SMALL = DemoSpec(
    frames=16,
    train=12,
    test=5,
    min_speed=1.0,
    max_speed=2.0,
    texture_amplitude=0.8,
    noise=0.0,
    seed=0,
)
PLAIN = replace(SMALL, size=64, texture_amplitude=0.0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(SMALL, tmp_path_factory.mktemp("cache"))


def test_lists_label_every_video(demo: Path) -> None:
    for split, count in (("train", 12), ("test", 5)):
        labels = [render(SMALL, index, split)[1:] for index in range(count)]
        for kind, column in (("digit", 0), ("direction", 1)):
            videos = read_inputs(str(demo / f"{split}_{kind}.csv"))
            assert videos.labels == [pair[column] for pair in labels]
            assert all(Path(path).is_file() for path in videos.paths)
    unlabelled = read_inputs(str(demo / "train.csv"))
    assert unlabelled.labels == [-1] * 12
    assert unlabelled.paths == read_inputs(str(demo / "train_digit.csv")).paths


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_videos_read_back_as_rendered(tmp_path: Path, size: int) -> None:
    spec = replace(SMALL, size=size, train=2, test=1)
    folder = make_demo(spec, tmp_path)
    reader = open_video(str(folder / "train" / "000001.mp4"), "decord")
    assert len(reader) == spec.frames
    read = reader.frames(np.arange(spec.frames)).permute(0, 2, 3, 1).numpy().astype(int)
    frames = render(spec, 1, "train")[0]
    assert read.shape == frames.shape == (16, size, size, 3)
    assert np.abs(read - frames).mean() < 3


def test_made_once_and_the_same_again(demo: Path, tmp_path: Path) -> None:
    stamp = (demo / "train" / "000000.mp4").stat().st_mtime_ns
    assert make_demo(SMALL, demo.parent) == demo
    assert (demo / "train" / "000000.mp4").stat().st_mtime_ns == stamp
    again = make_demo(SMALL, tmp_path)
    assert again.name == demo.name
    for file in sorted(demo.rglob("*.*")):
        assert file.read_bytes() == (again / file.relative_to(demo)).read_bytes()
    assert make_demo(replace(SMALL, seed=1), tmp_path) != again
    assert sorted(path.name[:5] for path in tmp_path.iterdir()) == ["demo-", "demo-"]


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("salt_plugin.data.demo.write_video", fail)
    with pytest.raises(CacheError, match="disk full"):
        make_demo(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_default_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make_demo(replace(SMALL, train=1, test=1)).parent == tmp_path / "salt_plugin"


def test_render_is_pure_and_seeded() -> None:
    one, other = render(SMALL, 3, "train"), render(SMALL, 3, "train")
    assert np.array_equal(one[0], other[0])
    assert one[1:] == other[1:]
    for spec, index, split in (
        (SMALL, 4, "train"),
        (SMALL, 3, "test"),
        (replace(SMALL, seed=1), 3, "train"),
    ):
        assert not np.array_equal(one[0], render(spec, index, split)[0])


def test_scans_of_train_and_test_are_disjoint() -> None:
    train, test = scan_split(0)
    assert not set(train) & set(test)
    assert len(train) + len(test) == 1797


@pytest.mark.parametrize("direction", range(8))
def test_direction_label_is_the_motion(direction: int) -> None:
    index = next(n for n in range(200) if render(PLAIN, n, "train")[2] == direction)
    frames = render(PLAIN, index, "train")[0][..., 0].astype(float)
    axis = np.arange(64) * 2 * np.pi / 64
    moved = []
    for weights in (frames.sum(axis=1), frames.sum(axis=2)):  # over columns, then rows
        phase = np.unwrap(np.angle(weights @ np.exp(1j * axis)))
        moved.append((phase[-1] - phase[0]) * 64 / (2 * np.pi) / 15)
    right, down = moved
    assert PLAIN.min_speed - 0.1 < np.hypot(right, down) < PLAIN.max_speed + 0.1
    assert round(np.degrees(np.arctan2(down, right)) / 45) % 8 == direction
    assert DIRECTIONS[direction] == (
        {1: "S", -1: "N", 0: ""}[round(down / np.hypot(right, down))]
        + {1: "E", -1: "W", 0: ""}[round(right / np.hypot(right, down))]
    )


def test_background_is_static_and_the_digit_lies_over_it() -> None:
    spec = replace(SMALL, size=64)
    frames = render(spec, 0, "train")[0][..., 0]
    background = frames.min(axis=0)
    assert (frames >= background).all()
    assert (frames == background).mean() > 0.7
    assert background.std() > 10


def test_texture_and_noise_parameters() -> None:
    flat = render(replace(SMALL, texture_contrast=0.0, texture_amplitude=0.5), 0, "train")[0]
    assert flat.min() == round(0.5 * 255)
    noisy = render(replace(SMALL, noise=0.1), 0, "train")[0].astype(int)
    clean = render(SMALL, 0, "train")[0].astype(int)
    middle = (clean > 80) & (clean < 170)
    assert (noisy - clean)[middle].std() == pytest.approx(25.5, rel=0.1)


def test_single_frames_say_nothing_of_the_direction() -> None:
    starts = [render(PLAIN, n, "train") for n in range(400)]
    rows = np.array([frames[8, :, :, 0].sum(axis=1) for frames, _, _ in starts], dtype=float)
    labels = np.array([direction for _, _, direction in starts])
    centres = np.stack([rows[:200][labels[:200] == direction].mean(0) for direction in range(8)])
    nearest = ((rows[200:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (nearest == labels[200:]).mean() < 0.22


@pytest.mark.parametrize(
    "bad",
    [{"size": 48}, {"digit": 40}, {"digit": 4}, {"frames": 0}, {"max_speed": 0.5}, {"noise": 2}],
)
def test_specs_that_cannot_work(bad: dict) -> None:
    with pytest.raises(ConfigError, match="expected"):
        replace(SMALL, **bad)
