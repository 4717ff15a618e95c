"""Metrics of every step, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.tensorboard import SummaryWriter

from salt_plugin.callbacks.accounts import Accounts
from salt_plugin.callbacks.collapse import Collapse
from salt_plugin.callbacks.ranks import Ranks
from salt_plugin.files import write_text
from salt_plugin.masks import Batch
from salt_plugin.run_directory import read_metrics, recent_loss

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
    "seconds",
    "target_spread",
    "target_rank",
)
SCALARS = ("loss", "lr", "weight_decay", "grad_norm", "target_spread", "target_rank")
FLUSH_EVERY = 50


class Metrics(Callback):
    """Writes `metrics.csv` and a TensorBoard log; a resumed stage continues both.

    Rows that a killed run had written beyond its last checkpoint are cut back. Losses stay on
    the device until a block of rows is written, so that logging does not wait for it; then they are
    averaged over the processes that train together.

    Args:
        folder: Folder of the stage.
        ranks: The processes that train together.
        accounts: Whose sums are written along.
        collapse: Whose measures are written where there are any.
        start_step: Steps that were done before, when the stage resumes.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        accounts: Accounts,
        collapse: Collapse,
        start_step: int,
    ) -> None:
        self.ranks = ranks
        self.path = folder / "metrics.csv"
        self.tensorboard = folder / "tensorboard"
        self.accounts = accounts
        self.collapse = collapse
        self.start_step = start_step
        self._rows: list[dict[str, Any]] = []
        self._writer: SummaryWriter | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens both files."""
        if not trainer.is_global_zero:
            return
        kept = []
        if self.start_step and self.path.is_file():
            kept = [row for row in read_metrics(self.path) if row["step"] <= self.start_step]
        table = io.StringIO(newline="")
        rows = csv.DictWriter(table, COLUMNS)
        rows.writeheader()
        rows.writerows(kept)
        write_text(self.path, table.getvalue())
        self._writer = SummaryWriter(str(self.tensorboard), purge_step=self.start_step + 1)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Takes the row of a step."""
        ledger = self.accounts.ledger
        group = trainer.optimizers[0].param_groups[0]
        row = {
            "step": trainer.global_step,
            "loss": outputs["loss"].detach(),
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "grad_norm": pl_module.grad_norm,
            "context_tokens": sum(mask.context.shape[1] for mask in batch.masks),
            "target_tokens": sum(mask.target.shape[1] for mask in batch.masks),
            "clips": ledger.clips,
            "flops": ledger.total_flops,
            "seconds": round(ledger.seconds, 3),
            **self.collapse.measured,
        }
        self._rows.append(row)
        if len(self._rows) >= FLUSH_EVERY:
            self.flush()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes what a resume will count on."""
        self.flush()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Writes what there is, unless others, who may be gone, have a share in it."""
        if self.ranks.size == 1:
            self.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the rest and closes."""
        self.flush()
        if self._writer is not None:
            self._writer.close()

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
