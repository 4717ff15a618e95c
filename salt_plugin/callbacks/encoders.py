"""Encoders of a stage on its way, to follow what training does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from salt_plugin.callbacks.metrics import Metrics
from salt_plugin.callbacks.nonfinite import NonFinite
from salt_plugin.checkpoints import save_encoder
from salt_plugin.masks import Batch
from salt_plugin.run_directory import StageDirectory


class KeptEncoders(Callback):
    """Writes `encoders/step-N.safetensors` every so many steps, and of the last step.

    It has to stand after `Metrics`, whose losses it reads, and before `Checkpoints`: what a resume
    skips is then there. Encoders that a killed run had written beyond its last checkpoint are
    removed, and made again.

    Args:
        files: The stage's.
        every_n_steps: How often; None keeps none.
        metrics: Tells the loss on the card.
        nonfinite: Ends training before an encoder of too many steps that were not finite is kept.
        card: What else to write on the card of a step.
        start_step: Steps that were done before, when the stage resumes.
    """

    def __init__(
        self,
        files: StageDirectory,
        every_n_steps: int | None,
        metrics: Metrics,
        nonfinite: NonFinite,
        card: Callable[[int], dict[str, Any]],
        start_step: int,
    ) -> None:
        self.files = files
        self.every_n_steps = every_n_steps
        self.metrics = metrics
        self.nonfinite = nonfinite
        self.card = card
        self.start_step = start_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes what lies beyond the step to go on from."""
        if trainer.is_global_zero:
            for step, path in self.files.kept_encoders().items():
                if step > self.start_step:
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Keeps the encoder when it is time."""
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the last encoder, unless it was one of those kept anyway."""
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        self.nonfinite.settle()
        self.metrics.flush()
        if not trainer.is_global_zero or step in self.files.kept_encoders():
            return
        card = {**self.card(step), "step": step, "loss": self.metrics.recent_loss()}
        encoder: Any = pl_module.kept_encoder
        save_encoder(encoder, self.files.encoder_at(step), card)
