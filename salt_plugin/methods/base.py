"""What every method shares: the optimiser and its schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from salt_plugin.masks import Batch
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.block import BlockStack
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor


class VideoMethod(LightningModule):
    """A method that trains `encoder` and one `head` under masks.

    Args:
        encoder: What is trained, and kept unless a method says otherwise.
        head: What is trained with it.
        recipe: Optimiser and schedules.

    Attributes:
        clock: Tells how many of the recipe's steps are done; None: as many as the trainer has.
        grad_norm: Gradient norm of the last step, before clipping.
        watched_kd: Of a method whose targets can collapse, some of those of the last step [K, D],
            before normalisation; None of all others.
    """

    encoder: VideoEncoder
    head: Predictor

    def __init__(self, encoder: VideoEncoder, head: Predictor, recipe: Recipe) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.recipe = recipe
        self.clock: Callable[[], float] | None = None
        self.grad_norm = torch.zeros(())
        self.watched_kd: Tensor | None = None

    @property
    def kept_encoder(self) -> VideoEncoder:
        """The encoder that a run leaves."""
        return self.encoder

    def block_stacks(self) -> list[BlockStack]:
        """Returns the transformer blocks of all models, to choose how they are executed."""
        return [self.encoder.blocks, self.head.predictor_blocks]

    def step_loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch (float32 scalar)."""
        raise NotImplementedError  # abstract

    def update_ema(self, position: float) -> None:
        """Moves what follows the weights after a step."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step, as Lightning calls it."""
        return self(batch)

    def forward(self, batch: Batch) -> Tensor:
        """No gradient of a loss that is not finite is finite."""
        loss = self.step_loss(batch)
        finite = loss.detach().isfinite()
        loss.register_hook(lambda gradient: torch.where(finite, gradient, torch.nan))
        return loss

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Moves a batch, as Lightning calls it; from pinned memory without waiting for the GPU."""
        if isinstance(batch, Batch):
            return batch.to(device, non_blocking=device.type == "cuda")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_optimizers(self) -> Optimizer:
        """Returns AdamW; its schedules are set before each step."""
        return self.recipe.optimizer([self.encoder, self.head])

    def position(self) -> float:
        """Returns how many of the recipe's steps are done, as the schedules count them."""
        return self.clock() if self.clock is not None else self.trainer.global_step

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        """Moves the schedules; -1 ends training where the trainer has been told to stop."""
        if self.trainer.should_stop:
            return -1
        self.recipe.apply(self.trainer.optimizers[0], self.position())
        return None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the recipe's norm and keeps the norm found, which is worth watching.

        A step whose gradients are not finite in any process is left out, on the device: weights
        and optimiser stay as they are.
        """
        limit = self.recipe.clip_grad or float("inf")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.grad_norm = nn.utils.clip_grad_norm_(parameters, limit)
        if self.recipe.fused:  # a gradient scaler, with which it cannot be, does the same
            optimizer.found_inf = (~self.grad_norm.isfinite()).float()  # type: ignore[attr-defined]
