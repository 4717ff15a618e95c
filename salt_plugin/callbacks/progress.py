"""Progress that a person can read."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from salt_plugin.compute import Ledger
from salt_plugin.masks import Batch
from salt_plugin.report.console import console
from salt_plugin.report.units import duration, flops

REFRESH_SECONDS = 0.5
LINE_SECONDS = 30.0


class Progress(Callback):
    """One bar a stage, with loss, clips/s and time left; plain lines where there is no terminal.

    Args:
        title: Name of the stage.
        total_steps: Its steps; under a budget, those that it is expected to pay for.
        ledger: Tells what is spent.
    """

    def __init__(self, title: str, total_steps: int, ledger: Ledger) -> None:
        self.title = title
        self.total_steps = total_steps
        self.ledger = ledger
        self.console = console()
        self._clips = 0
        self._start = 0.0
        self._began = self._shown = 0.0
        self._bar: Bar | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar."""
        self._start = _position(pl_module)
        self._began = self._shown = time.perf_counter()
        if trainer.is_global_zero and self.console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                console=self.console,
            )
            self._bar.start()
            self._bar.add_task(
                self.title, total=self.total_steps, completed=round(self._start), state=""
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Moves the bar now and then: reading the loss waits for the device."""
        self._clips += len(batch.clips) * trainer.world_size
        now = time.perf_counter()
        done = _position(pl_module)
        wait = REFRESH_SECONDS if self._bar is not None else LINE_SECONDS
        if not trainer.is_global_zero or (now - self._shown < wait and done < self.total_steps):
            return
        self._shown = now
        rate = (now - self._began) / max(1e-9, done - self._start)
        left = duration(rate * max(0.0, self.total_steps - done))
        clips = self._clips / (now - self._began)
        spent = flops(self.ledger.total_flops)
        state = f"loss {float(outputs['loss']):.4f}  {clips:.1f} clips/s  {spent}  {left} left"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=round(done), state=state)
        else:
            line = f"{self.title}  {round(done)}/{self.total_steps}  {state}"
            self.console.print(line)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the full bar."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves the bar where it is."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _position(pl_module: LightningModule) -> float:
    return pl_module.position()  # type: ignore[operator]
