"""The list of files that could not be read, and of those that hang."""

from __future__ import annotations

from pathlib import Path

import outcome
import pytest
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.errors import DataError
from salt_plugin.train import run

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
