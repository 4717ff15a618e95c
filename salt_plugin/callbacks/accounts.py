"""Books what every step costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import Callback, LightningModule, Trainer

from salt_plugin.callbacks.ranks import Ranks
from salt_plugin.compute import Bill, Ledger, Tokens, stage_bill
from salt_plugin.files import write_json
from salt_plugin.masks import Batch

StepCost = Callable[[int, Sequence[Tokens]], dict[str, int]]
"""FLOPs by part of a step, from the number of clips and the mask sets' tokens of each."""


class _Step(NamedTuple):
    flops: dict[str, int]
    recomputed: int
    clips: int
    tokens: int


class Accounts(Callback):
    """Keeps the ledger of a stage and writes it to `compute.json`; it survives a resume.

    Args:
        ranks: The processes that train together.
        path: The file.
        stage: Name of the stage.
        step_cost: FLOPs by part of a step on one device.
        recomputed: FLOPs that activation checkpointing adds to it; None where it is off.
        inherited: What was spent before the stage, as `compute.stage_bill` takes it.
    """

    def __init__(
        self,
        ranks: Ranks,
        path: Path,
        stage: str,
        step_cost: StepCost,
        recomputed: Callable[[int, Sequence[Tokens]], int] | None,
        inherited: Mapping[str, int | None],
    ) -> None:
        self.ranks = ranks
        self.path = path
        self.stage = stage
        self.step_cost = step_cost
        self.recomputed = recomputed
        self.inherited = inherited
        self.ledger = Ledger()
        self._step = _Step({}, 0, 0, 0)
        self._last = 0.0

    @property
    def next_flops(self) -> int:
        """FLOPs of the step that is about to begin, on all devices."""
        return sum(self._step.flops.values())

    def bill(self) -> Bill:
        """Returns what the encoder has cost so far."""
        return stage_bill(self.stage, self.ledger, self.inherited)

    def as_dict(self) -> dict[str, Any]:
        """Returns ledger and bill, as `compute.json` and the encoder's card hold them."""
        return {**self.ledger.as_dict(), "bill": self.bill().as_dict()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._last = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Counts the step before it is made, on all devices."""
        masks = [Tokens(mask.context.shape[1], mask.target.shape[1]) for mask in batch.masks]
        # Block sizes and cuts differ between the processes.
        counts = self.ranks.gather_counts([len(batch.clips), *(n for mask in masks for n in mask)])
        on_each = [
            (row[0], [Tokens(*pair) for pair in zip(row[1::2], row[2::2], strict=True)])
            for row in counts
        ]
        self._step = self._cost(on_each)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Books the step."""
        now = time.perf_counter()
        self.ledger.add_step(**self._step._asdict(), seconds=now - self._last)
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

    def _cost(self, on_each: Sequence[tuple[int, list[Tokens]]]) -> _Step:
        # Without clips remains what a step costs once, however many devices share it.
        once = self.step_cost(0, on_each[0][1])
        flops = dict(once)
        for clips, masks in on_each:
            for part, count in self.step_cost(clips, masks).items():
                flops[part] += count - once[part]
        return _Step(
            flops=flops,
            recomputed=sum(self.recomputed(*one) for one in on_each) if self.recomputed else 0,
            clips=sum(clips for clips, _ in on_each),
            tokens=sum(clips * sum(map(sum, masks)) for clips, masks in on_each),
        )

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            write_json(self.path, self.as_dict())
