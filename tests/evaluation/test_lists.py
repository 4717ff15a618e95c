from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from salt_plugin.config import ProbeConfig, probe_config
from salt_plugin.config.evaluation import probe_sets
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation.lists import read_lists


def listing(folder: Path, name: str, *rows: str) -> str:
    (folder / name).write_text("".join(f"{row}\n" for row in rows))
    return str(folder / name)


def test_lists_share_one_numbering_of_classes(small: ProbeConfig, tmp_path: Path) -> None:
    train = listing(tmp_path, "train.csv", "a.mp4 7", "b.mp4 3", "c.mp4 7")
    test = listing(tmp_path, "test.csv", "d.mp4 3", "e.mp4 7")
    lists = read_lists(replace(small, train=train, test=test))
    assert lists.classes == ["3", "7"]
    assert lists.train.labels_n.tolist() == [1, 0, 1]
    assert lists.test.labels_n.tolist() == [0, 1]
    assert lists.test.paths == [str(tmp_path / "d.mp4"), str(tmp_path / "e.mp4")]


def test_folders_of_images_are_listed_where_a_set_is_of_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.JPEG", "JPEG")
    folders = {"train": str(tmp_path / "train"), "test": str(tmp_path / "val")}
    lists = read_lists(probe_config("in1k", classes=2, **folders))
    assert lists.classes == ["cat", "dog"]
    with pytest.raises(DataError, match=r"probe\.train=.*holds no videos"):
        read_lists(probe_config(**folders))


def test_groups_are_matched_by_path(small: ProbeConfig, labelled: Path, tmp_path: Path) -> None:
    rows = [f"{labelled / f'test{i}.mp4'} {'even' if i % 2 == 0 else 'odd'}" for i in range(6)]
    lists = read_lists(replace(small, groups=listing(tmp_path, "groups.csv", *rows[::-1])))
    assert lists.groups is not None
    assert lists.groups.tolist() == [0, 1, 0, 1, 0, 1]
    with pytest.raises(DataError, match=r"names no group for 2 of 6 test videos"):
        read_lists(replace(small, groups=listing(tmp_path, "groups.csv", *rows[:4])))


@pytest.mark.parametrize(
    ("train", "test", "classes", "message"),
    [
        (["a 0", "b 1"], ["c 0", "d 1", "e 2"], None, r"train.*has 2 of 3 classes: it lacks 2"),
        (["a 0", "b 1", "c 2"], ["d 0"], None, r"test.*has 1 of 3 classes: it lacks 1, 2"),
        (["a 0", "b -1"], ["c 0", "d 1"], None, r"train.*1 unlabelled of 2 videos; .*/b:"),
        (["a 0", "b 1"], ["c 0", "d -1", "e -1"], None, r"test.*2 unlabelled of 3.*/d:"),
        (["a 0", "b 1"], ["c 0", "d 1"], 3, r"train.*has 2 classes: expected 3"),
        (["a 0", "b 0"], ["c 0"], None, r"has 1 classes: expected at least 2"),
    ],
)
def test_lists_that_do_not_fit_are_one_error(
    small: ProbeConfig,
    tmp_path: Path,
    train: list[str],
    test: list[str],
    classes: int | None,
    message: str,
) -> None:
    given = {
        "train": listing(tmp_path, "train.csv", *train),
        "test": listing(tmp_path, "test.csv", *test),
    }
    with pytest.raises(DataError, match=message):
        read_lists(replace(small, classes=classes, **given))


def test_missing_lists_are_named(small: ProbeConfig) -> None:
    with pytest.raises(ConfigError, match=r"probe\.test: missing; .*--test"):
        read_lists(replace(small, test=None))
    with pytest.raises(DataError, match=r"probe\.train=.*nowhere\.csv does not exist"):
        read_lists(replace(small, train="nowhere.csv"))


@pytest.mark.parametrize(
    ("name", "classes", "clip", "views"),
    [
        ("k400", 400, (16, 4), (8, 3)),
        ("ssv2", 174, (16, 4), (2, 3)),
        ("coin", 180, (16, 4), (8, 3)),
        ("diving48", 48, (16, 2), (4, 3)),
        ("jester", 27, (16, 2), (4, 3)),
        ("in1k", 1000, (16, 1), (1, 1)),
    ],
)
def test_the_sets_of_the_paper(
    name: str, classes: int, clip: tuple[int, int], views: tuple[int, int]
) -> None:
    found = probe_config(name)
    assert (found.classes, found.epochs, found.grid) == (classes, 20, "full")
    assert (found.frames, found.step) == clip
    assert found.size == 224
    assert (found.segments, found.crops) == views
    assert found.images == (name == "in1k")
    assert found.annotations


def test_lists_of_the_demo_are_of_the_set_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sizes = {"train": 120, "val": 120, "test": 1}
    for name, classes in (("demo_val", 8), ("demo_digit_val", 10)):
        config = probe_config(name, demo=sizes)
        lists = read_lists(config)
        assert len(lists.classes) == classes
        for split, found in (("train", lists.train), ("val", lists.test)):
            assert len(found.paths) == sizes[split]
            assert {Path(path).parent.name for path in found.paths} == {split}
    with pytest.raises(DataError, match=r"demo:val_digit\.csv is no list of the set"):
        read_lists(replace(config, demo={**sizes, "val": 0}))
    with pytest.raises(ConfigError, match=r"probe\.demo: .*'tran'"):
        read_lists(replace(config, demo={"tran": 3}))


def test_every_set_is_typed_and_unknown_ones_are_suggested() -> None:
    assert {"demo", "demo_digit", "demo_val", "demo_digit_val", "folder"} <= set(probe_sets())
    for name in probe_sets():
        probe_config(name)
    with pytest.raises(ConfigError, match=r"'k40' is no data set.*'k400'"):
        probe_config("k40")
    with pytest.raises(ConfigError, match=r"probe\.segmets: unknown key.*'segments'"):
        probe_config("k400", segmets=2)
    with pytest.raises(ConfigError, match=r"probe\.epochs=0: expected at least 1"):
        probe_config(epochs=0)


def test_a_file_of_keys_stands_over_the_generic_set(labelled: Path) -> None:
    (labelled / "mine.yaml").write_text("train: train.csv\ntest: test.csv\ncrops: 3\n")
    found = probe_config(str(labelled / "mine.yaml"), segments=2)
    assert (found.segments, found.crops, found.frames) == (2, 3, 16)
    assert read_lists(found).classes == ["0", "1", "2"]
    (labelled / "bad.yaml").write_text("crop: 3\n")
    with pytest.raises(ConfigError, match=r"probe\.crop: unknown key; did you mean 'crops'"):
        probe_config(str(labelled / "bad.yaml"))
