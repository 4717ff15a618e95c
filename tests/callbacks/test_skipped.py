"""The list of files that could not be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from salt_plugin.callbacks import Ranks, SkippedFiles
from salt_plugin.callbacks.skipped import read_skipped
from salt_plugin.data.quarantine import Quarantine
from salt_plugin.errors import DataError
from salt_plugin.masks import Batch

MODULE: Any = None


class _Two(Ranks):
    """Two processes, of which the other meets the same files in the same order."""

    def __init__(self, other: dict[str, str]) -> None:
        super().__init__({})
        self.size = 2
        self.other = other

    def gather(self, own: Any) -> list[Any]:
        return [own, self.other]


def _skipped(
    ranks: Ranks, path: Path, max_bad: float, videos: tuple[str, ...] = ("a.mp4",)
) -> SkippedFiles:
    return SkippedFiles(ranks, path, 10, max_bad, Quarantine(videos, clips=1, ahead=2))


def _start(callback: SkippedFiles) -> Any:
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=0)
    callback.on_train_start(trainer, MODULE)
    return trainer


def _step(callback: SkippedFiles, *skipped: tuple[str, str], done: int = 1) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=done)
    batch = Batch(torch.zeros(1), torch.zeros(1), [], 0, list(skipped))
    callback.on_train_batch_end(trainer, MODULE, None, batch, 0)


def test_what_other_processes_met_is_listed_once_with_the_next_checkpoint(tmp_path: Path) -> None:
    other = {"there.mp4": "torn", "both.mp4": "empty"}
    skipped = _skipped(_Two(other), tmp_path / "skipped.csv", 1.0)
    trainer = _start(skipped)
    _step(skipped, ("here.mp4", "no video"), ("both.mp4", "empty"), ("both.mp4", "empty"))
    assert [row["path"] for row in read_skipped(skipped.path)] == ["here.mp4", "both.mp4"]
    for _ in range(2):
        skipped.on_save_checkpoint(trainer, MODULE, {})
    rows = read_skipped(skipped.path)
    assert [row["path"] for row in rows] == ["here.mp4", "both.mp4", "there.mp4"]
    assert rows[2]["reason"] == "torn"


def test_with_several_processes_too_many_end_the_run_once_all_know_of_them(tmp_path: Path) -> None:
    skipped = _skipped(_Two({"there.mp4": "torn"}), tmp_path / "skipped.csv", 0.1)
    trainer = _start(skipped)
    _step(skipped, ("here.mp4", "empty"))
    skipped.on_save_checkpoint(trainer, MODULE, {})
    with pytest.raises(DataError, match="2 of 10 files"):
        _step(skipped)


def test_more_than_max_bad_ends_the_run_with_the_list(tmp_path: Path) -> None:
    callback = _skipped(Ranks({}), tmp_path / "skipped.csv", 0.2)
    _start(callback)
    _step(callback, ("1.mp4", "empty"), ("2.mp4", "empty"))
    resumed = _skipped(Ranks({}), callback.path, 0.2)
    _start(resumed)
    _step(resumed, ("2.mp4", "empty"))
    with pytest.raises(DataError) as caught:
        _step(resumed, ("3.mp4", "decoding failed: x"))
    for part in (
        "3 of 10 files",
        "method.data.max_bad allows 2",
        "2 empty; 1 decoding",
        "salt data",
    ):
        assert part in str(caught.value)
    assert len(read_skipped(callback.path)) == 3


def test_files_that_hang_are_in_quarantine_and_in_the_checkpoint(tmp_path: Path) -> None:
    videos = ("good.mp4", "hangs.mp4", "torn.mp4", "there.mp4")
    other = {"there.mp4": "not read within 60 s"}
    callback = _skipped(_Two(other), tmp_path / "skipped.csv", 1.0, videos)
    trainer = _start(callback)
    _step(callback, ("torn.mp4", "torn"), ("hangs.mp4", "not read within 60 s"), done=3)
    checkpoint: dict[str, Any] = {}
    trainer.global_step = 4
    callback.on_save_checkpoint(trainer, MODULE, checkpoint)
    # Two steps ahead is step 6; epochs of four videos, one a step, end at 4, 8 and so on.
    assert checkpoint["quarantine"] == {"hangs.mp4": 8, "there.mp4": 8}
    resumed = _skipped(_Two({}), tmp_path / "other.csv", 1.0, videos)
    resumed.on_load_checkpoint(trainer, MODULE, checkpoint)
    _start(resumed)
    for index, step in ((0, 99), (1, 7), (2, 99)):
        resumed.quarantine.require(index, step)
    with pytest.raises(DataError, match=r"hangs\.mp4: left out"):
        resumed.quarantine.require(1, 8)


def test_what_a_killed_run_had_listed_is_in_quarantine_too(tmp_path: Path) -> None:
    (tmp_path / "skipped.csv").write_text("path,reason\na.mp4,not read within 60 s\n")
    callback = _skipped(Ranks({}), tmp_path / "skipped.csv", 1.0)
    _start(callback)
    assert callback.quarantine.state() == {"a.mp4": 2}


@pytest.mark.parametrize("left", [5, 30, 40])
def test_a_row_that_is_torn_is_listed_again(tmp_path: Path, left: int) -> None:
    files = [("one.mp4", "empty"), ("two.mp4", "no video")]
    whole = _skipped(Ranks({}), tmp_path / "whole.csv", 1.0)
    _start(whole)
    _step(whole, *files)
    torn = tmp_path / "torn.csv"
    torn.write_bytes(whole.path.read_bytes()[:left])
    resumed = _skipped(Ranks({}), torn, 1.0)
    _start(resumed)
    _step(resumed, *files)
    assert torn.read_bytes() == whole.path.read_bytes()
