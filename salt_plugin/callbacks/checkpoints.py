"""The checkpoints that a stage resumes from."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from salt_plugin.callbacks.ranks import Ranks
from salt_plugin.callbacks.resume import previous_checkpoint
from salt_plugin.errors import Interrupted, SaltError
from salt_plugin.files import sync
from salt_plugin.masks import Batch
from salt_plugin.stop_signals import StopSignals


class Checkpoints(Callback):
    """Writes `last.ckpt` now and then, to another name first, so that it is never torn.

    The one before it is kept as well, in case a disk damages it. Where it cannot be written,
    training goes on to the next time, and ends with an error if there is none.

    After a signal it writes it as well, and ends training. It has to stand last among the
    callbacks: it saves their state. A loss or gradient that is not finite ends training instead:
    what was saved before stays.

    Args:
        path: The file.
        resumed_from: What the stage has resumed from; None where it has just begun.
        every_n_steps: How often, in steps.
        every_minutes: How often, in minutes, if that comes first; 0 or None leaves it at steps.
        ranks: The processes that train together: they save and stop at the same step, when the
            first one's clock says so, or a signal has reached any of them.
        signals: Tells whether to stop.
    """

    def __init__(
        self,
        path: Path,
        resumed_from: Path | None,
        every_n_steps: int,
        every_minutes: float | None,
        ranks: Ranks,
        signals: StopSignals,
    ) -> None:
        self.path = path
        self.resumed_from = resumed_from
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.ranks = ranks
        self.signals = signals
        self._loss = torch.zeros(())
        self._saved_step = 0
        self._saved_time = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and listens for signals."""
        if trainer.is_global_zero and self.resumed_from not in (None, self.path):
            os.replace(self.resumed_from, self.path)  # over a damaged one
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
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
        self._loss = outputs["loss"].detach()
        step = trainer.global_step
        late, signal_number = self.ranks.largest(
            [int(trainer.is_global_zero and self._is_late()), self.signals.received]
        )
        if step % self.every_n_steps == 0 or late or signal_number:
            self._save(trainer, pl_module, last_chance=bool(signal_number))
        if signal_number:
            raise Interrupted(f"saved at step {step}; the same command goes on", signal_number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last step, unless it is saved."""
        if trainer.global_step != self._saved_step:
            self._save(trainer, pl_module, last_chance=True)

    def _is_late(self) -> bool:
        if not self.every_minutes:
            return False
        return time.monotonic() - self._saved_time >= 60 * self.every_minutes

    def _save(self, trainer: Trainer, pl_module: LightningModule, last_chance: bool) -> None:
        require_finite(trainer, pl_module, self._loss, self.path)
        self._saved_time = time.monotonic()
        failure = self._write(trainer)
        (failed,) = self.ranks.largest([int(failure is not None)])
        if not failed:
            self._saved_step = trainer.global_step
            return
        message = (
            f"the checkpoint of step {trainer.global_step} could not be written "
            f"({failure or 'by the first process'}); make room for it, or mend {self.path.parent}: "
            f"what was saved up to step {self._saved_step} is kept"
        )
        if last_chance:
            raise SaltError(message)
        rank_zero_warn(f"{message}, and training goes on")

    def _write(self, trainer: Trainer) -> Exception | None:
        unfinished = self.path.with_suffix(".tmp")
        try:
            trainer.save_checkpoint(unfinished)
        except (OSError, RuntimeError) as error:
            if not _is_of_the_disk(error):
                raise
            with contextlib.suppress(OSError):
                unfinished.unlink()  # what fits of it only takes room
            trainer.strategy.barrier()  # where the other processes are, in save_checkpoint
            return error
        if trainer.is_global_zero:
            try:
                sync(unfinished)
                if self.path.is_file():
                    os.replace(self.path, previous_checkpoint(self.path))
                os.replace(unfinished, self.path)
            except OSError as error:
                return error
        return None


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) or "inline_container" in str(error)


def require_finite(trainer: Trainer, pl_module: LightningModule, loss: Tensor, kept: Path) -> None:
    """Checks a step before something of it is saved.

    Args:
        trainer: The trainer, after the step.
        pl_module: The method, with the gradient norm of the step.
        loss: The loss of the step, a scalar.
        kept: The checkpoint that stays as it is.

    Raises:
        SaltError: The loss or the gradient norm is not finite.
    """
    norm = cast(Tensor, pl_module.grad_norm)
    # A gradient scaler overflows now and then by design, and skips that step.
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if not loss.isfinite() or not (scaled or norm.isfinite()):
        raise SaltError(
            f"the loss is {float(loss)} and the gradient norm {float(norm)} at step "
            f"{trainer.global_step}: training has diverged. Lower optimizer.lr or set "
            f"method.optim.clip_grad; {kept} is kept as it was before"
        )
