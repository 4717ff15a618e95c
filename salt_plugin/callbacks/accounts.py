"""Books what every step costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from salt_plugin.compute import Ledger, Tokens
from salt_plugin.files import write_json
from salt_plugin.masks import Batch

StepCost = Callable[[int, Sequence[Tokens]], dict[str, int]]


class Accounts(Callback):
    """Keeps the ledger of a stage and writes it to `compute.json`; it survives a resume.

    Args:
        path: The file.
        step_cost: FLOPs by part of a step, from the number of clips and the mask sets' tokens.
    """

    def __init__(self, path: Path, step_cost: StepCost) -> None:
        self.path = path
        self.step_cost = step_cost
        self.ledger = Ledger()
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._last = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Books the step on all devices."""
        now = time.perf_counter()
        masks = [Tokens(mask.context.shape[1], mask.target.shape[1]) for mask in batch.masks]
        clips = len(batch.clips) * trainer.world_size
        self.ledger.add_step(
            self.step_cost(clips, masks),
            clips=clips,
            tokens=clips * sum(sum(tokens) for tokens in masks),
            seconds=now - self._last,
        )
        self._last = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        self._write(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes the file, so that it is never behind the checkpoint."""
        self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the ledger."""
        return self.ledger.as_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the ledger."""
        self.ledger.load(state_dict)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            write_json(self.path, self.ledger.as_dict())
