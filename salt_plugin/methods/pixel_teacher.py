"""Stage 1: masked pixel reconstruction under V-JEPA's masks (the paper's "V-Pixel")."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from salt_plugin.batch import Batch
from salt_plugin.losses import PixelLoss
from salt_plugin.methods.base import Pieces, VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder, gather_tokens, unpatchify
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher


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
        super().__init__(recipe)
        self.encoder = encoder
        self.decoder = decoder
        self.loss = loss

    @classmethod
    def configured(
        cls,
        node: Any,
        pieces: Pieces,
        encoder: VideoEncoder,
        recipe: Recipe,
        teacher: FrozenTeacher | None,
    ) -> PixelTeacher:
        """Builds what a configuration describes; see `VideoMethod.configured`."""
        assert pieces.pixel_loss is not None
        decoder = pieces.new_predictor(encoder, encoder.shape.patch_dim)
        return cls(encoder, decoder, pieces.pixel_loss, recipe)

    @property
    def result(self) -> VideoEncoder:
        """The encoder."""
        return self.encoder

    def trained(self) -> list[nn.Module]:
        """Returns encoder and decoder."""
        return [self.encoder, self.decoder]

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        clips = batch.normalized()
        patches_bnp, grid = self.encoder.patchify(clips), self.encoder.grid(clips)
        encoded = self.encoder.forward_sets(patches_bnp, grid, batch.masks)
        decoded = self.decoder.forward_sets(encoded, batch.masks, grid)
        losses = [
            self.loss(pixels_bmp, gather_tokens(patches_bnp[mask.clips], mask.target))
            for pixels_bmp, mask in zip(decoded, batch.masks, strict=True)
        ]
        return batch.mean(losses)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, mask_index: int = 0) -> Reconstruction:
        """Fills in the masked pixels of the clips of one of `batch.masks`, for pictures.

        Where the loss normalises tubelets, each one's true mean and deviation are put back.
        """
        mask = batch.masks[mask_index]
        context, target = mask.context, mask.target
        clips = batch.normalized()
        patches_bnp, grid = self.encoder.patchify(clips), self.encoder.grid(clips)
        encoded = self.encoder.forward_sets(patches_bnp, grid, [mask])
        (decoded_bmp,) = self.decoder.forward_sets(encoded, [mask], grid)
        patches_bnp = patches_bnp[mask.clips]
        decoded_bmp = decoded_bmp.to(patches_bnp.dtype)
        pixels_bmp = self.loss.restore(decoded_bmp, gather_tokens(patches_bnp, target))
        P = patches_bnp.shape[-1]
        visible = torch.zeros_like(patches_bnp)
        seen_bkp = gather_tokens(patches_bnp, context)
        visible.scatter_(1, context.unsqueeze(-1).expand(-1, -1, P), seen_bkp)
        filled = visible.scatter(1, target.unsqueeze(-1).expand(-1, -1, P), pixels_bmp)
        tubelet, patch = self.encoder.shape.tubelet_size, self.encoder.shape.patch_size
        return Reconstruction(
            unpatchify(visible, grid, tubelet, patch), unpatchify(filled, grid, tubelet, patch)
        )
