"""What every method shares: one step's loss in, schedules, clipping and EMA around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from salt_plugin.batch import Batch
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.block import BlockStack
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher
from salt_plugin.shapes import HeadShape, ProjectorShape


class Pieces(Protocol):
    """What a configuration gives for building a method."""

    @property
    def pixel_loss(self) -> PixelLoss | None:
        """Loss of predicted pixels; None where none are predicted."""

    @property
    def latent_loss(self) -> LatentLoss | None:
        """Loss of predicted latents; None where none are predicted."""

    @property
    def projector(self) -> ProjectorShape:
        """Shape of the projector, where the method has one."""

    @property
    def head(self) -> HeadShape:
        """Shape of the classifier, where the method has one."""

    def new_predictor(self, encoder: VideoEncoder, out_dim: int) -> Predictor:
        """Returns a predictor, or a decoder, at its start."""


class VideoMethod(LightningModule):
    """A method: `forward` maps a batch to its loss.

    It trains under a plain `pytorch_lightning.Trainer`, whose hooks are below, and in a loop of
    one's own, which for each step calls

    1. `recipe.apply(optimizer, position)` with `position` steps done,
    2. `loss = method(batch)` and `loss.backward()`,
    3. `clip(optimizer, position)` and `optimizer.step()`,
    4. `update_ema(position)`.

    If a loss is not finite, a hook on the module makes all its gradients NaN, so that `clip` finds
    the step. The hook works under DDP and Fabric as well.

    Args:
        recipe: Optimiser and schedules.

    Attributes:
        grad_norm: Gradient norm of the last step, before clipping.
        watched_kd: Some targets of the last step [K, D], before normalisation, of methods whose
            targets can collapse; None of all others.
        teacher_fingerprint: SHA-256 of the frozen teacher's weights; None where there is none.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.grad_norm = torch.zeros(())
        self.watched_kd: Tensor | None = None
        self.teacher_fingerprint: str | None = None
        self.register_forward_hook(_guard)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch (float32 scalar)."""
        raise NotImplementedError  # abstract

    @classmethod
    def configured(
        cls,
        node: Any,
        pieces: Pieces,
        encoder: VideoEncoder,
        recipe: Recipe,
        teacher: FrozenTeacher | None,
    ) -> VideoMethod:
        """Returns the method that a configuration describes.

        Args:
            node: The node `method`.
            pieces: Its losses and predictor.
            encoder: To be trained.
            recipe: Optimiser and schedules.
            teacher: Frozen; None unless the method has one trained before it.
        """
        raise NotImplementedError  # abstract

    @property
    def result(self) -> VideoEncoder:
        """The encoder that a run leaves."""
        raise NotImplementedError  # abstract

    @property
    def others(self) -> dict[str, VideoEncoder]:
        """Encoders that a run leaves beside `result`, by their kind, `online` or `ema`."""
        return {}

    @property
    def evaluation_flops(self) -> int:
        """FLOPs of a step that serve evaluations alone: no part of training or its budget."""
        return 0

    def targets(self, clips: Tensor) -> Tensor | None:
        """Returns the latents that are to be predicted of whole clips, before normalisation.

        Args:
            clips: [B, C, T, H, W], normalised.

        Returns:
            [B, N, D]; None of a method that predicts none.
        """
        return None

    def trained(self) -> Sequence[nn.Module]:
        """Returns what the optimiser is given."""
        raise NotImplementedError  # abstract

    def update_ema(self, position: float) -> None:
        """Moves what follows the trained weights, after the optimiser's step at `position`."""

    def check_frozen(self) -> None:
        """Checks, once training has ended, that what is frozen has not changed.

        Raises:
            SaltError: It has.
        """

    def optimizer(self) -> AdamW:
        """Returns AdamW over what is trained; its schedules are set before each step."""
        return self.recipe.optimizer(self.trained())

    def clip(self, optimizer: Optimizer, position: float = math.inf) -> None:
        """Clips by the recipe's norm, keeps the norm found, and skips a step that is not finite.

        If gradients are not finite in any process, weights and optimiser stay as they are; this is
        decided on the device.

        Args:
            optimizer: Torch's own, not a wrapper of it.
            position: Steps that are done; by default all of those before which nothing is clipped.
        """
        parts = [[p for group in optimizer.param_groups for p in group["params"]]]
        recipe = self.recipe
        if recipe.clip_each:
            parts = [list(module.parameters()) for module in self.trained()]
        late = position >= recipe.clip_after * recipe.warmup_steps
        limit = recipe.clip_grad if recipe.clip_grad and late else math.inf
        norms: list[Any] = [nn.utils.clip_grad_norm_(parameters, limit) for parameters in parts]
        if hasattr(norms[0], "full_tensor"):  # of FSDP2
            norms = [norm.full_tensor() for norm in norms]
        self.grad_norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
        if recipe.fused:  # a gradient scaler skips the step itself
            optimizer.found_inf = (~self.grad_norm.isfinite()).float()  # type: ignore[attr-defined]

    def block_stacks(self) -> list[BlockStack]:
        """Returns the transformer blocks of all models, to choose how they are executed."""
        return [module for module in self.modules() if isinstance(module, BlockStack)]

    # Hooks that a `pytorch_lightning.Trainer` calls.

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Moves a batch; from pinned memory without waiting for the GPU."""
        if isinstance(batch, Batch):
            return batch.to(device, non_blocking=device.type == "cuda")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_optimizers(self) -> Optimizer:
        """Returns `optimizer()`."""
        return self.optimizer()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Moves the schedules."""
        self.recipe.apply(self.trainer.optimizers[0], self.trainer.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss."""
        loss: Tensor = self(batch)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the recipe says, whatever the trainer is told."""
        self.clip(optimizer, self.trainer.global_step)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Steps, then moves the EMA: before any callback saves it."""
        position = self.trainer.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.update_ema(position)


def _guard(method: nn.Module, arguments: tuple[Any, ...], loss: Tensor) -> None:
    """Makes the gradients of a loss that is not finite not finite."""
    if loss.requires_grad:
        finite = loss.detach().isfinite()
        loss.register_hook(lambda gradient: torch.where(finite, gradient, torch.nan))
