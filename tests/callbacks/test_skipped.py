"""The list of files that could not be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from salt_plugin.callbacks import Ranks, SkippedFiles
from salt_plugin.callbacks.skipped import read_skipped
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


def _start(callback: SkippedFiles) -> Any:
    trainer: Any = SimpleNamespace(is_global_zero=True)
    callback.on_train_start(trainer, MODULE)
    return trainer


def _step(callback: SkippedFiles, *skipped: tuple[str, str]) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True)
    batch = Batch(torch.zeros(1), torch.zeros(1), [], 0, list(skipped))
    callback.on_train_batch_end(trainer, MODULE, None, batch, 0)


def test_what_other_processes_met_is_listed_once_with_the_next_checkpoint(tmp_path: Path) -> None:
    other = {"there.mp4": "torn", "both.mp4": "empty"}
    skipped = SkippedFiles(_Two(other), tmp_path / "skipped.csv", 10, 1.0)
    trainer = _start(skipped)
    _step(skipped, ("here.mp4", "no video"), ("both.mp4", "empty"), ("both.mp4", "empty"))
    assert [row["path"] for row in read_skipped(skipped.path)] == ["here.mp4", "both.mp4"]
    for _ in range(2):
        skipped.on_save_checkpoint(trainer, MODULE, {})
    rows = read_skipped(skipped.path)
    assert [row["path"] for row in rows] == ["here.mp4", "both.mp4", "there.mp4"]
    assert rows[2]["reason"] == "torn"


def test_with_several_processes_too_many_end_the_run_once_all_know_of_them(tmp_path: Path) -> None:
    skipped = SkippedFiles(_Two({"there.mp4": "torn"}), tmp_path / "skipped.csv", 10, 0.1)
    trainer = _start(skipped)
    _step(skipped, ("here.mp4", "empty"))
    skipped.on_save_checkpoint(trainer, MODULE, {})
    with pytest.raises(DataError, match="2 of 10 files"):
        _step(skipped)


def test_more_than_max_bad_ends_the_run_with_the_list(tmp_path: Path) -> None:
    callback = SkippedFiles(Ranks({}), tmp_path / "skipped.csv", 10, 0.2)
    _start(callback)
    _step(callback, ("1.mp4", "empty"), ("2.mp4", "empty"))
    resumed = SkippedFiles(Ranks({}), callback.path, 10, 0.2)
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
