"""Loss between predicted pixels and those at the masked places (pixel teacher, VideoMAE)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# VideoMAE's constant, added to the standard deviation.
STD_EPS = 1e-6


def normalize_patches(patches: Tensor, channels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Standardises every channel of every tubelet over its own pixels, as VideoMAE.

    Args:
        patches: [..., P], P in the order (channel, time, height, width).
        channels: Number of channels in P.

    Returns:
        The standardised patches [..., P], and the mean and standard deviation
        [..., channels, 1] that undo it.
    """
    pixels = patches.unflatten(-1, (channels, -1))
    mean = pixels.mean(-1, keepdim=True)
    std = pixels.std(-1, keepdim=True)
    return ((pixels - mean) / (std + STD_EPS)).flatten(-2), mean, std


class PixelLoss(nn.Module):
    """Mean squared error on pixels (the paper: "identical to VideoMAE").

    Args:
        normalize: Standardise each channel of each target tubelet (VideoMAE's way; inferred for
            SALT's teacher).
        channels: Colour channels of a clip.
    """

    def __init__(self, normalize: bool = True, channels: int = 3) -> None:
        super().__init__()
        self.normalize = normalize
        self.channels = channels

    def restore(self, prediction_bmp: Tensor, patches_bmp: Tensor) -> Tensor:
        """Returns predictions [B, M, P] as pixels, with each true tubelet's mean and deviation."""
        if not self.normalize:
            return prediction_bmp
        _, mean, std = normalize_patches(patches_bmp, self.channels)
        pixels = prediction_bmp.unflatten(-1, (self.channels, -1)) * std + mean
        return pixels.flatten(-2)

    def forward(self, prediction_bmp: Tensor, patches_bmp: Tensor) -> Tensor:
        """Returns the mean loss (float32 scalar) over [B, M, P] predictions and pixels."""
        target = patches_bmp.detach().float()
        if self.normalize:
            target = normalize_patches(target, self.channels)[0]
        return F.mse_loss(prediction_bmp.float(), target)
