"""Metrics of every step, as CSV and for loggers."""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salt_plugin.config import RunConfig
from salt_plugin.evaluation.spectrum import effective_rank, spread
from salt_plugin.files import write_csv
from salt_plugin.run_directory import read_metrics
from salt_plugin.training.loggers import Loggers
from salt_plugin.training.world import Ranks

COLUMNS = (
    *("step", "loss", "lr", "weight_decay", "grad_norm", "context_tokens", "target_tokens"),
    *("clips", "flops", "seconds", "data_seconds", "clips_per_second", "peak_memory_mib"),
    *("target_spread", "target_rank", "val_accuracy"),
    *("monitor_knn", "monitor_linear", "monitor_rank", "monitor_target_rank"),
)
FLUSH_EVERY = 50
MEASURE_EVERY = 100

# [ours] On the demo a random encoder has 81, V-JEPA's targets have 36 to 41, and with an EMA that
# follows too fast, whose features are the worst, 15 (docs/methods/vjepa.md).
COLLAPSED_RANK = 8.0


class Metrics:
    """Writes `metrics.csv` and to the loggers; a resumed stage continues all.

    Rows that a killed run had written beyond its last checkpoint are cut back. Losses stay on
    the device until a block of rows is written, so that logging does not wait for it; then they are
    averaged over the processes that train together.

    Args:
        config: Of the run.
        folder: Folder of the stage.
        ranks: The processes that train together.
        start_step: Steps that were done before, when the stage resumes.
    """

    def __init__(self, config: RunConfig, folder: Path, ranks: Ranks, start_step: int) -> None:
        self.ranks = ranks
        self.path = folder / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._loggers: Loggers | None = None
        if not ranks.is_first:
            return
        kept = []
        if start_step and self.path.is_file():
            kept = [row for row in read_metrics(self.path) if row["step"] <= start_step]
        write_csv(self.path, COLUMNS, kept)
        self._loggers = Loggers(config, folder, start_step, kept)

    def add(self, targets_kd: Tensor | None, **row: Any) -> None:
        """Takes the row of a step.

        Args:
            targets_kd: Some of the targets of the step [K, D], as `measure_targets` takes them.
            **row: By `COLUMNS`; loss and gradient norm are tensors.
        """
        if self.ranks.is_first:
            row |= measure_targets(row["step"], targets_kd)
        self._rows.append(row)
        if len(self._rows) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes the rows there are; every process has to call it, and waits for its device."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        own = torch.stack([row["loss"] for row in rows]).tolist()
        losses = torch.tensor(self.ranks.gather(own), dtype=torch.float64).mean(0).tolist()
        if self._loggers is None:
            return
        for row, loss in zip(rows, losses, strict=True):
            row["loss"], row["grad_norm"] = loss, float(row["grad_norm"])
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerows(rows)
        self._loggers.write(rows)

    def close(self) -> None:
        """Writes the last rows, unless other processes, which may be gone, would have to help."""
        if self.ranks.size == 1:
            self.flush()
        if self._loggers is not None:
            self._loggers.close("failed" if sys.exc_info()[0] else "success")


def measure_targets(step: int, targets_kd: Tensor | None) -> dict[str, float]:
    """Measures the targets of the first step and of every hundredth, before normalisation.

    LayerNorm would hide a collapse: collapsed targets have a spread of 0 and an effective rank of 1
    at most.

    Args:
        step: Steps done.
        targets_kd: Some of the targets of the last step [K, D]; None of a method that does not
            make its own.

    Returns:
        `target_spread` and `target_rank`; nothing where it is not time, or targets are not finite.
    """
    if targets_kd is None or (step > 1 and step % MEASURE_EVERY):
        return {}
    if not targets_kd.isfinite().all():
        return {}
    rank = effective_rank(targets_kd)
    if step > 1 and rank < COLLAPSED_RANK:
        warnings.warn(
            f"the targets of step {step} have an effective rank of {rank:.1f}: they hardly tell "
            "clips apart any more. A higher method.momentum.start or a lower optimizer.lr helps "
            "against such a collapse",
            stacklevel=2,
        )
    return {"target_spread": spread(targets_kd), "target_rank": rank}
