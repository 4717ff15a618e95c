from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from salt_plugin.callbacks import Ranks, SkippedFiles
from salt_plugin.callbacks.skipped import read_skipped
from salt_plugin.masks import Batch


def test_what_other_processes_met_is_listed_once_with_the_next_checkpoint(tmp_path: Path) -> None:
    class Two(Ranks):
        """Two processes, of which the other has met these."""

        def gather(self, own: Any) -> list[Any]:
            return [own, {"there.mp4": "torn", "both.mp4": "empty"}]

    skipped = SkippedFiles(Two({}), tmp_path / "skipped.csv")
    trainer: Any = SimpleNamespace(is_global_zero=True)
    module: Any = None
    skipped.on_train_start(trainer, module)
    here = [("here.mp4", "no video"), ("both.mp4", "empty")]
    batch = Batch(torch.zeros(1), torch.zeros(1), [], 0, here)
    skipped.on_train_batch_end(trainer, module, None, batch, 0)
    assert [row["path"] for row in read_skipped(tmp_path / "skipped.csv")] == [
        "here.mp4",
        "both.mp4",
    ]
    for _ in range(2):
        skipped.on_save_checkpoint(trainer, module, {})
    rows = read_skipped(tmp_path / "skipped.csv")
    assert [row["path"] for row in rows] == ["here.mp4", "both.mp4", "there.mp4"]
    assert rows[2]["reason"] == "torn"
