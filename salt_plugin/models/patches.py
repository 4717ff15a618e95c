"""Clips as flattened tubelets, and picking tokens by index."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_plugin.shapes import Grid


def patchify(clip_bcthw: Tensor, tubelet_size: int, patch_size: int) -> Tensor:
    """Cuts clips into flattened tubelets.

    Args:
        clip_bcthw: [B, C, T, H, W].
        tubelet_size: Frames in a tubelet.
        patch_size: Side of a tubelet in pixels.

    Returns:
        [B, N, P] with N in row-major (t, h, w) order and P = C * tubelet_size * patch_size^2
        in the order (c, t, h, w) of a Conv3d kernel.
    """
    B, C, T, H, W = clip_bcthw.shape
    t, h, w = T // tubelet_size, H // patch_size, W // patch_size
    split = clip_bcthw.reshape(B, C, t, tubelet_size, h, patch_size, w, patch_size)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, t * h * w, -1)


def unpatchify(patches_bnp: Tensor, grid: Grid, tubelet_size: int, patch_size: int) -> Tensor:
    """Inverse of `patchify`: [B, N, P] to [B, C, T, H, W]."""
    t, h, w = grid
    B, _, P = patches_bnp.shape
    C = P // (tubelet_size * patch_size**2)
    split = patches_bnp.reshape(B, t, h, w, C, tubelet_size, patch_size, patch_size)
    return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(
        B, C, t * tubelet_size, h * patch_size, w * patch_size
    )


def gather_tokens(tokens_bnd: Tensor, indices_bk: Tensor) -> Tensor:
    """Picks tokens by index: [B, N, D] and int64 [B, K] to [B, K, D]."""
    B, N, _ = tokens_bnd.shape
    first_b1 = torch.arange(0, B * N, N, device=indices_bk.device).unsqueeze(1)
    # Whole rows at a time, which is several times faster than `gather` on CPUs.
    rows_kd = tokens_bnd.flatten(0, 1).index_select(0, (indices_bk + first_b1).flatten())
    return rows_kd.unflatten(0, indices_bk.shape)
