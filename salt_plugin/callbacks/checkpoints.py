"""The checkpoints that a stage resumes from."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from salt_plugin.callbacks.nonfinite import NonFinite
from salt_plugin.callbacks.ranks import Ranks
from salt_plugin.callbacks.writer import BackgroundWriter, Failure
from salt_plugin.errors import Interrupted, SaltError
from salt_plugin.masks import Batch
from salt_plugin.stop_signals import StopSignals


class Checkpoints(Callback):
    """Has `last.ckpt` written now and then, by a thread, while training goes on.

    The one before it is kept as well, in case a disk damages it. Where it cannot be written,
    training goes on to the next time, and ends with an error if there is none.

    After a signal it is written as well, and training ends. While steps are not finite, none is
    written until one is again. It has to stand last among the callbacks: it saves their state.

    Args:
        path: The file.
        resumed_from: What the stage has resumed from; None where it has just begun.
        every_n_steps: How often, in steps.
        every_minutes: How often, in minutes, if that comes first; 0 or None leaves it at steps.
        writer: The trainer's, which writes the file in the first process.
        ranks: The processes that train together: they save and stop at the same step, when the
            first one's clock says so, or a signal has reached any of them.
        nonfinite: Tells whether steps are finite.
        signals: Tells whether to stop.
    """

    def __init__(
        self,
        path: Path,
        resumed_from: Path | None,
        every_n_steps: int,
        every_minutes: float | None,
        writer: BackgroundWriter,
        ranks: Ranks,
        nonfinite: NonFinite,
        signals: StopSignals,
    ) -> None:
        self.path = path
        self.resumed_from = resumed_from
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.writer = writer
        self.ranks = ranks
        self.nonfinite = nonfinite
        self.signals = signals
        self._put_off = False
        self._step = 0
        self._time = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and listens for signals."""
        if trainer.is_global_zero and self.resumed_from not in (None, self.path):
            os.replace(self.resumed_from, self.path)  # over a damaged one
        self._step = trainer.global_step
        self._time = time.monotonic()
        self.signals.listen()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Saves when it is time, or when a signal has come.

        Raises:
            Interrupted: One has, and the step is saved.
        """
        step = trainer.global_step
        late, signal_number = self.ranks.largest(
            [int(trainer.is_global_zero and self._is_late()), self.signals.received]
        )
        if step % self.every_n_steps == 0 or late or self._put_off or signal_number:
            self._save(trainer, last_chance=bool(signal_number))
        elif not self.writer.busy:
            self._warn(self.writer.failure())
        if signal_number:
            raise Interrupted(f"saved at step {step}; the same command goes on", signal_number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last step, unless it is saved."""
        failure = self.writer.failure()
        self._warn(failure)
        (failed,) = self.ranks.largest([int(failure is not None)])
        if failed or trainer.global_step != self._step:
            self._save(trainer, last_chance=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Waits for what is being written."""
        failure = self.writer.failure()
        if failure is not None:
            rank_zero_warn(self._told(failure))

    def _is_late(self) -> bool:
        if not self.every_minutes:
            return False
        return time.monotonic() - self._time >= 60 * self.every_minutes

    def _save(self, trainer: Trainer, last_chance: bool) -> None:
        self._put_off = self.nonfinite.settle() > 0 and not last_chance
        if self._put_off:
            return
        self._step, self._time = trainer.global_step, time.monotonic()
        self._warn(self.writer.failure())
        trainer.save_checkpoint(self.path)
        if last_chance:
            failure = self.writer.failure()
            (failed,) = self.ranks.largest([int(failure is not None)])
            if failed:
                raise SaltError(self._told(failure))

    def _warn(self, failure: Failure | None) -> None:
        if failure is not None:
            rank_zero_warn(f"{self._told(failure)}, and training goes on")

    def _told(self, failure: Failure | None) -> str:
        step, reason = failure or (self._step, "by the first process")
        return (
            f"the checkpoint of step {step} could not be written ({reason}); make room for it, or "
            f"mend {self.path.parent}: what was saved up to step {self.writer.saved_step} is kept"
        )
