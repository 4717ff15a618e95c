from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from salt_plugin.data.demo import DIRECTIONS, DemoSpec, demo_list, make_demo, render, spec_of
from salt_plugin.data.digits import scans_of
from salt_plugin.data.sources import read_inputs
from salt_plugin.errors import CacheError, ConfigError, DataError
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


def test_the_default_set_is_what_it_has_been(tmp_path: Path) -> None:
    first = {"train": "c4791d6662d9452c", "test": "fef647e16362c32a"}
    for split, expected in first.items():
        digest = hashlib.sha256()
        for index in range(3):
            frames, *labels = render(DemoSpec(), index, split)
            digest.update(frames.tobytes() + bytes(labels))
        assert digest.hexdigest()[:16] == expected
    made = tmp_path / "demo-ffa3c7844c79"  # as it is named in users' caches
    made.mkdir()
    assert make_demo(DemoSpec(), tmp_path) == made


@pytest.mark.parametrize("validation", [False, True])
def test_no_scan_is_in_two_splits(validation: bool) -> None:
    scans = scans_of(0, validation)
    assert sorted(np.concatenate(list(scans.values()))) == list(range(1797))
    assert np.array_equal(scans["test"], scans_of(0)["test"])
    assert (len(scans["val"]) > 0) == validation


@pytest.mark.parametrize("val", [0, 1])
def test_clips_show_the_scans_of_their_split(val: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, grey = scans_of(1, validation=val > 0), {"train": 0.2, "val": 0.4, "test": 0.8}
    images = np.zeros((1797, 8, 8))
    for split, numbers in scans.items():
        images[numbers] = grey[split]
    monkeypatch.setattr("salt_plugin.data.digits._scans", lambda: (images, np.arange(1797)))
    plain = {"frames": 2, "digit": 32, "noise": 0.0, "texture_amplitude": 0.0}
    for split, level in grey.items():
        if len(scans[split]):
            drawn = [render(DemoSpec(val=val, **plain), index, split) for index in range(50)]
            assert all((frames == round(level * 255)).all() for frames, _, _ in drawn)
            assert {scan for _, scan, _ in drawn} <= set(scans[split])


def test_validation_has_lists_of_its_own_and_leaves_the_test_clips(
    demo: Path, tmp_path: Path
) -> None:
    spec = replace(SMALL, val=4)
    folder = make_demo(spec, tmp_path)
    for kind, column in (("digit", 1), ("direction", 2)):
        videos = read_inputs(str(folder / f"val_{kind}.csv"))
        assert videos.labels == [render(spec, index, "val")[column] for index in range(4)]
    for file in sorted((demo / "test").iterdir()):
        assert file.read_bytes() == (folder / "test" / file.name).read_bytes()


def test_a_list_that_a_set_has_not_is_named(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "salt_plugin").symlink_to(demo.parent)
    assert demo_list("train.csv", SMALL) == str(tmp_path / "salt_plugin" / demo.name / "train.csv")
    with pytest.raises(DataError, match=r"demo:val_digit\.csv is no list .*set val of the demo"):
        demo_list("val_digit.csv", SMALL)
    with pytest.raises(ConfigError, match=r"probe\.demo: .*'vall'"):
        spec_of({"vall": 3}, "probe.demo")


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
