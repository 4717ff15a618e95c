"""The list of files that could not be read, and of those that hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import outcome
import pytest
from served import write_tar
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.errors import DataError
from salt_plugin.train import run
from salt_plugin.video.places import LocalFile
from salt_plugin.video.shards import INDEX_SUFFIX, make_index, read_members

KEYS = ["method=pixel_teacher", *TINY, "trainer.max_steps=8"]


def train(videos: Path, run_dir: Path, *overrides: str) -> None:
    run(compose([*KEYS, f"input_dir={videos}", *overrides]), run_dir)


@pytest.fixture(scope="module")
def videos(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of six good files and four bad ones."""
    folder = tmp_path_factory.mktemp("bad")
    paths = sorted(tiny_videos.rglob("*.mp4"))
    for number in range(4):
        paths.append(folder / f"{number}.mp4")
        paths[-1].write_text("no video" * number)
    (folder / "videos.csv").write_text("".join(f"{path} 0\n" for path in paths))
    return folder / "videos.csv"


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(videos, run_dir, "method.data.max_bad=0.5")
    return run_dir


def test_each_is_listed_once_with_its_reason(whole: Path) -> None:
    reasons = outcome.skipped(whole)
    assert len(reasons) == 4
    assert {Path(path).name for path in reasons} == {f"{number}.mp4" for number in range(4)}
    assert {reason.partition(":")[0] for reason in reasons.values()} == {
        "the file is empty (0 bytes)",
        "not a video file that PyAV can open",
    }


def test_more_than_max_bad_ends_the_run_with_the_list_also_when_it_goes_on(
    videos: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            train(videos, tmp_path, "method.data.max_bad=0.3", "method.checkpoint.every_n_steps=1")
        for part in (
            "4 of 10 files",
            "method.data.max_bad allows 3",
            "By reason: 3 not a video file that PyAV can open; 1 the file is empty",
            "salt data check",
            *outcome.skipped(tmp_path),
        ):
            assert part in str(caught.value)
    assert len(outcome.skipped(tmp_path)) == 4


def test_wrong_members_and_cut_shards_are_bad_files_and_counted_by_reason(
    tiny_videos: Path, tmp_path: Path
) -> None:
    good = [str(path) for path in sorted(tiny_videos.rglob("*.mp4"))]
    members = {f"{number}.mp4": Path(path).read_bytes() for number, path in enumerate(good)}
    shards = {name: write_tar(tmp_path / f"{name}.tar", members) for name in ("whole", "cut", "ix")}
    found = list(read_members("", LocalFile(str(shards["ix"]))))
    index = make_index(shards["ix"].stat().st_size, found)
    np.save(tmp_path / "index.npy", index)
    (tmp_path / "index.npy").rename(f"{shards['ix']}{INDEX_SUFFIX}")
    for name in ("cut", "ix"):
        content = shards[name].read_bytes()
        shards[name].write_bytes(content[: content.index(b"4.mp4\0") + 800])
    bad = {
        f"tar://6.mp4::{shards['whole']}": "no such member in the shard",
        f"tar://seven.mp4::{shards['whole']}": "no such member in the shard",
        f"tar://a.%06d.jpg::{shards['whole']}": "there are no images of this name",
        f"tar://4.mp4::{shards['cut']}": "the shard was cut",
        f"tar://0.mp4::{shards['ix']}": "the shard was cut or changed",
    }
    good += [f"tar://2.mp4::{shards['whole']}", f"tar://3.mp4::{shards['cut']}"]
    videos = tmp_path / "videos.csv"
    videos.write_text("".join(f"{path} 0\n" for path in [*good, *bad]))
    train(videos, tmp_path / "run", "method.data.max_bad=0.5")
    reasons = outcome.skipped(tmp_path / "run")
    assert {path: reason.partition(":")[0] for path, reason in reasons.items()} == bad
    with pytest.raises(DataError, match=r"By reason: 2 no such member in the shard; 1 "):
        train(videos, tmp_path / "strict", "method.data.max_bad=0.35")
