"""Losses of predicted latents and of predicted pixels."""

from salt_plugin.losses.latent import LatentLoss
from salt_plugin.losses.pixel import PixelLoss, normalize_patches

__all__ = ["LatentLoss", "PixelLoss", "normalize_patches"]
