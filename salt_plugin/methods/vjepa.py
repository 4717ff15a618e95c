"""V-JEPA: an encoder predicts the latents of its own moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from salt_plugin.losses import LatentLoss
from salt_plugin.methods.latent import LatentPrediction
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.block import BlockStack
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor
from salt_plugin.shapes import Grid

# Tokens of the targets that are looked at for collapse.
WATCHED_TOKENS = 1024


class VJEPA(LatentPrediction):
    """Predicts at the masked places what the target encoder makes of the whole clip.

    The loss is `LatentPrediction`'s, as in SALT, with the target encoder as the teacher. It starts
    as a copy of the encoder, and after optimiser step k of K, counted from 0,
    target = m_k target + (1 - m_k) encoder, where m_k goes linearly from `momentum[0]` at 0 to
    `momentum[1]` at K. V-JEPA 1 has 0.998 and 1.0 (arXiv 2404.08471), V-JEPA 2 0.99925 throughout
    (arXiv 2506.09985).

    Args:
        encoder: The encoder that is trained.
        predictor: Projects to the encoder's own width.
        loss: Distance to the latents.
        recipe: Optimiser and schedules.
        momentum: Of the moving average, first and last.

    Attributes:
        target: The moving average: no gradient, evaluation mode, in the checkpoint. It is what
            is kept, since it is what V-JEPA evaluates.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        predictor: Predictor,
        loss: LatentLoss,
        recipe: Recipe,
        momentum: tuple[float, float],
    ) -> None:
        super().__init__(encoder, predictor, loss, recipe)
        self.momentum = momentum
        self.target = copy.deepcopy(encoder).eval().requires_grad_(False)

    @property
    def kept_encoder(self) -> VideoEncoder:
        """The target encoder."""
        return self.target

    def train(self, mode: bool = True) -> VJEPA:
        """Leaves the target in evaluation mode."""
        super().train(mode)
        self.target.eval()
        return self

    def block_stacks(self) -> list[BlockStack]:
        """Returns the blocks of encoder, predictor and target."""
        return [*super().block_stacks(), self.target.blocks]

    @torch.no_grad()
    def latents(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Returns the target's latents [B, N, D] of whole clips, and keeps some to be watched."""
        latents_bnd = self.target.forward_patches(patches_bnp, grid)
        tokens_td = latents_bnd.flatten(0, 1)
        self.watched_kd = tokens_td[:: -(-len(tokens_td) // WATCHED_TOKENS)].clone()
        return latents_bnd

    def momentum_at(self, position: float) -> float:
        """Returns the momentum after `position` of the recipe's steps, counted from 0."""
        start, end = self.momentum
        return start + (end - start) * position / self.recipe.total_steps

    @torch.no_grad()
    def update_ema(self, position: float) -> None:
        """Moves the target towards the encoder, after the optimiser's step at `position`."""
        target: list[Tensor] = list(self.target.parameters())
        encoder: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(target, encoder, 1 - self.momentum_at(position))

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Steps, then moves the target: before any callback saves it."""
        position = self.position()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.update_ema(position)
