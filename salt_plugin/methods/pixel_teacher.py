"""Stage 1: masked pixel reconstruction under V-JEPA's masks (the paper's "V-Pixel")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.losses import PixelLoss
from salt_plugin.masks import Batch, MaskSet
from salt_plugin.methods.base import VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.patches import gather_tokens, unpatchify
from salt_plugin.models.predictor import Predictor
from salt_plugin.shapes import Grid


class Reconstruction(NamedTuple):
    """Clips [B, C, T, H, W]: what the encoder saw (masked parts zero), and what was filled in."""

    visible: Tensor
    filled: Tensor


class PixelTeacher(VideoMethod):
    """Encodes the visible tubelets and regresses the pixels of the masked ones.

    For every mask set, with context x and target y of a clip,
    loss = mean over y of |decoder(encoder(x), y) - normalise(pixels(y))|^2; sets are averaged.

    Args:
        encoder: Becomes the frozen teacher.
        decoder: A predictor whose output is a tubelet's pixels.
        loss: Distance to the pixels.
        recipe: Optimiser and schedules.
    """

    def __init__(
        self, encoder: VideoEncoder, decoder: Predictor, loss: PixelLoss, recipe: Recipe
    ) -> None:
        super().__init__(encoder, decoder, recipe)
        self.loss = loss

    def step_loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        patches_bnp = self.encoder.patchify(batch.clips)
        grid = self.encoder.grid(batch.clips)
        losses = [
            self.loss(pixels_bmp, gather_tokens(patches_bnp, mask.target))
            for pixels_bmp, mask in zip(
                self._decode(patches_bnp, grid, batch.masks), batch.masks, strict=True
            )
        ]
        return torch.stack(losses).mean()

    def _decode(
        self, patches_bnp: Tensor, grid: Grid, masks: Sequence[MaskSet], first_mask: int = 0
    ) -> list[Tensor]:
        context = [mask.context for mask in masks]
        encoded = self.encoder.forward_sets(patches_bnp, grid, context)
        target = [mask.target for mask in masks]
        return self.head.forward_sets(encoded, context, target, grid, first_mask)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, mask_index: int = 0) -> Reconstruction:
        """Fills in the masked pixels of a batch, for pictures.

        Where the loss normalises tubelets, each one's true mean and deviation are put back.
        """
        patches_bnp = self.encoder.patchify(batch.clips)
        grid = self.encoder.grid(batch.clips)
        mask = batch.masks[mask_index]
        (predicted_bmp,) = self._decode(patches_bnp, grid, [mask], mask_index)
        predicted_bmp = predicted_bmp.to(patches_bnp.dtype)
        pixels_bmp = self.loss.restore(predicted_bmp, gather_tokens(patches_bnp, mask.target))
        P = patches_bnp.shape[-1]
        context_index = mask.context.unsqueeze(-1).expand(-1, -1, P)
        target_index = mask.target.unsqueeze(-1).expand(-1, -1, P)
        visible = torch.zeros_like(patches_bnp)
        visible.scatter_(1, context_index, gather_tokens(patches_bnp, mask.context))
        tubelet, patch = self.encoder.shape.tubelet_size, self.encoder.shape.patch_size
        return Reconstruction(
            unpatchify(visible, grid, tubelet, patch),
            unpatchify(visible.scatter(1, target_index, pixels_bmp), grid, tubelet, patch),
        )
