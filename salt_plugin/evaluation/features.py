"""Features of clips, from an encoder that stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_plugin.models.encoder import VideoEncoder


@torch.no_grad()
def mean_features(encoder: VideoEncoder, clips_ncthw: Tensor, batch_size: int = 64) -> Tensor:
    """Returns the mean over all tokens: float32 [N, D] of clips [N, C, T, H, W]."""
    encoder.eval()
    return torch.cat([encoder(batch).mean(1) for batch in clips_ncthw.split(batch_size)])


def shuffle_frames(clips_ncthw: Tensor, seed: int) -> Tensor:
    """Puts the frames of each clip [N, C, T, H, W] into a random order of its own."""
    N, C, T, H, W = clips_ncthw.shape
    generator = torch.Generator().manual_seed(seed)
    order_nt = torch.rand(N, T, generator=generator).argsort(1)
    return clips_ncthw.gather(2, order_nt[:, None, :, None, None].expand(N, C, T, H, W))
