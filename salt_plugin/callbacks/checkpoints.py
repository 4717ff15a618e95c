"""The checkpoint that a stage resumes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from salt_plugin.errors import CheckpointError, SaltError
from salt_plugin.masks import Batch


class Checkpoints(Callback):
    """Writes `last.ckpt` every so many steps, to another name first, so that it is never torn.

    It has to stand last among the callbacks: it saves their state. A loss or gradient that is not
    finite ends training instead: what was saved before stays.

    Args:
        path: The file.
        every_n_steps: How often.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self._loss = torch.zeros(())

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Saves when it is time."""
        self._loss = outputs["loss"].detach()
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last step, unless it was one of those saved anyway."""
        if trainer.global_step % self.every_n_steps:
            self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        require_finite(trainer, pl_module, self._loss, self.path)
        unfinished = self.path.with_suffix(".tmp")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, self.path)


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


def steps_done(path: Path) -> int:
    """Returns the optimiser steps in a checkpoint, 0 where there is none.

    Raises:
        CheckpointError: The file cannot be read.
    """
    if not path.is_file():
        return 0
    try:
        return int(
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        )
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be resumed from ({type(error).__name__}: {error}); delete it to start "
            "this stage again, or choose another hydra.run.dir"
        ) from None
