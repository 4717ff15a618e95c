"""What SALT and V-JEPA share: the prediction of latents at masked places."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_plugin.losses import LatentLoss
from salt_plugin.masks import Batch
from salt_plugin.methods.base import VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.patches import gather_tokens
from salt_plugin.models.predictor import Predictor
from salt_plugin.shapes import Grid


class LatentPrediction(VideoMethod):
    """Encodes the visible tubelets and predicts what a teacher makes of the masked ones.

    For every mask set, with context x and target y of a clip,
    loss = |predictor(encoder(x), y) - LayerNorm(teacher(clip)[y])|_1; sets are averaged. The
    teacher sees the whole clip once, without a gradient. Who it is, the methods differ in.

    Args:
        encoder: What is trained.
        predictor: Projects to the teacher's width.
        loss: Distance to the latents.
        recipe: Optimiser and schedules.
    """

    def __init__(
        self, encoder: VideoEncoder, predictor: Predictor, loss: LatentLoss, recipe: Recipe
    ) -> None:
        super().__init__(encoder, predictor, recipe)
        self.loss = loss

    def latents(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Returns the teacher's latents [B, N, D] of whole clips, without a graph."""
        raise NotImplementedError  # abstract

    def step_loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        patches_bnp = self.encoder.patchify(batch.clips)
        grid = self.encoder.grid(batch.clips)
        latents_bnd = self.latents(patches_bnp, grid)
        context = [mask.context for mask in batch.masks]
        target = [mask.target for mask in batch.masks]
        encoded = self.encoder.forward_sets(patches_bnp, grid, context)
        predicted = self.head.forward_sets(encoded, context, target, grid)
        losses = [
            self.loss(predicted_bmd, gather_tokens(latents_bnd, places_bm))
            for predicted_bmd, places_bm in zip(predicted, target, strict=True)
        ]
        return torch.stack(losses).mean()
