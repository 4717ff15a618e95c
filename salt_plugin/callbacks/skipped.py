"""The list of files that could not be read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from salt_plugin.callbacks.ranks import Ranks
from salt_plugin.masks import Batch


class SkippedFiles(Callback):
    """Lists each unreadable file once in `skipped.csv`, when it is first met.

    What other processes meet is listed with the next checkpoint.

    Args:
        ranks: The processes that train together.
        path: The file; it is made at the start, with its header alone while nothing was skipped.
    """

    def __init__(self, ranks: Ranks, path: Path) -> None:
        self.ranks = ranks
        self.path = path
        self._known: set[str] = set()
        self._met: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads what an earlier stage or an interrupted run has listed."""
        if not trainer.is_global_zero:
            return
        if self.path.is_file():
            self._known = {row["path"] for row in read_skipped(self.path)}
        else:
            self._append([("path", "reason")])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Adds what was met in this batch."""
        if trainer.is_global_zero:
            self._list(dict(batch.skipped))
        else:
            self._met |= dict(batch.skipped)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds what other processes have met since the last checkpoint."""
        everywhere = self.ranks.gather(self._met)
        self._met = {}
        if trainer.is_global_zero:
            for met in everywhere:
                self._list(met)

    def _list(self, met: dict[str, str]) -> None:
        new = {path: reason for path, reason in met.items() if path not in self._known}
        if new:
            self._append(list(new.items()))
            self._known |= new.keys()

    def _append(self, rows: list[tuple[str, str]]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)


def read_skipped(path: Path) -> list[dict[str, str]]:
    """Returns the rows (path, reason) of a `skipped.csv`."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
