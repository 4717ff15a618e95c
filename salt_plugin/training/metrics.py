"""Metrics of every step, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from salt_plugin.files import write_text
from salt_plugin.run_directory import read_metrics, recent_loss
from salt_plugin.training.ranks import Ranks

# What differs between two runs of the same numbers.
TIMED = ("seconds", "data_seconds", "clips_per_second", "peak_memory_mib")

COLUMNS = (
    "step",
    "loss",
    "lr",
    "weight_decay",
    "grad_norm",
    "context_tokens",
    "target_tokens",
    "clips",
    "flops",
    *TIMED,
    "target_spread",
    "target_rank",
)
SCALARS = (
    "loss",
    "lr",
    "weight_decay",
    "grad_norm",
    "data_seconds",
    "clips_per_second",
    "target_spread",
    "target_rank",
)
FLUSH_EVERY = 50


class Metrics:
    """Writes `metrics.csv` and a TensorBoard log; a resumed stage continues both.

    Rows that a killed run had written beyond its last checkpoint are cut back. Losses stay on
    the device until a block of rows is written, so that logging does not wait for it; then they are
    averaged over the processes that train together.

    Args:
        folder: Folder of the stage.
        ranks: The processes that train together.
        start_step: Steps that were done before, when the stage resumes.
    """

    def __init__(self, folder: Path, ranks: Ranks, start_step: int) -> None:
        self.ranks = ranks
        self.path = folder / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._writer: SummaryWriter | None = None
        if not ranks.is_first:
            return
        kept = []
        if start_step and self.path.is_file():
            kept = [row for row in read_metrics(self.path) if row["step"] <= start_step]
        table = io.StringIO(newline="")
        rows = csv.DictWriter(table, COLUMNS)
        rows.writeheader()
        rows.writerows(kept)
        write_text(self.path, table.getvalue())
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)

    def add(self, **row: Any) -> None:
        """Takes the row of a step, by `COLUMNS`; loss and gradient norm are tensors."""
        self._rows.append(row)
        if len(self._rows) >= FLUSH_EVERY:
            self.flush()

    def recent_loss(self) -> float:
        """Returns `run_directory.recent_loss` as of the last `flush`."""
        return recent_loss(self.path)

    def flush(self) -> None:
        """Writes the rows there are; every process has to call it, and waits for its device."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        losses = self.ranks.mean(torch.stack([row["loss"] for row in rows])).tolist()
        if self._writer is None:
            return
        for row, loss in zip(rows, losses, strict=True):
            row["loss"] = loss
            row["grad_norm"] = float(row["grad_norm"])
            for name in (name for name in SCALARS if name in row):
                self._writer.add_scalar(name, row[name], row["step"])
        self._writer.flush()
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerows(rows)

    def close(self) -> None:
        """Writes the rows there are, unless others, who may be gone, have a share in them."""
        if self.ranks.size == 1:
            self.flush()
        if self._writer is not None:
            self._writer.close()
