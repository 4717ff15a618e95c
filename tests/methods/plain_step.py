"""The training step as the V-JEPA papers put it, with nothing done for speed.

Every patch is embedded by the convolution and most are thrown away, every mask set is a pass of its
own, sine and cosine are made anew in every layer from neighbouring channels, softmax is written
out, and AdamW goes parameter by parameter. It shares nothing with the package but names in a
state dict.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def rotate(x_bhnd: Tensor, index_bn: Tensor, grid: tuple[int, int, int]) -> Tensor:
    d = x_bhnd.shape[-1]
    run = 2 * ((d // 3) // 2)
    _, rows, columns = grid
    places = [
        index_bn // (rows * columns),
        (index_bn // columns) % rows,
        index_bn % columns,
    ]
    parts = []
    for axis, place_bn in enumerate(places):
        part = x_bhnd[..., axis * run : (axis + 1) * run]
        frequency = 10000.0 ** -(torch.arange(run // 2) / (run / 2))
        angle = (place_bn[:, None, :, None] * frequency).repeat(1, 1, 1, 2)
        turned = torch.stack((-part[..., 1::2], part[..., 0::2]), dim=-1).flatten(-2)
        parts.append(part * angle.cos() + turned * angle.sin())
    return torch.cat((*parts, x_bhnd[..., 3 * run :]), dim=-1)


def _linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(x: Tensor, state: State, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def _block(
    x: Tensor, index_bn: Tensor, grid: tuple[int, int, int], state: State, name: str, heads: int
) -> Tensor:
    B, N, D = x.shape
    qkv = _linear(_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv")
    q, k, v = qkv.reshape(B, N, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    q, k = rotate(q, index_bn, grid), rotate(k, index_bn, grid)
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(D // heads), dim=-1)
    mixed = (weights @ v).transpose(1, 2).reshape(B, N, D)
    x = x + _linear(mixed, state, f"{name}.attn.proj")
    hidden = F.gelu(_linear(_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
    return x + _linear(hidden, state, f"{name}.mlp.fc2")


def _pick(tokens_bnd: Tensor, index_bk: Tensor) -> Tensor:
    return torch.stack([tokens[index] for tokens, index in zip(tokens_bnd, index_bk, strict=True)])


def encode(
    clips: Tensor, index_bk: Tensor, grid: tuple[int, int, int], state: State, heads: int
) -> Tensor:
    kernel = state["patch_embed.proj.weight"].shape[2:]
    embedded = F.conv3d(
        clips, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=kernel
    )
    x = _pick(embedded.flatten(2).transpose(1, 2), index_bk)
    depth = 0
    while f"blocks.{depth}.norm1.weight" in state:
        x = _block(x, index_bk, grid, state, f"blocks.{depth}", heads)
        depth += 1
    return _norm(x, state, "norm")


def predict(
    context: Tensor,
    context_bk: Tensor,
    target_bm: Tensor,
    grid: tuple[int, int, int],
    state: State,
    heads: int,
    number: int,
) -> Tensor:
    token = state[f"mask_tokens.{number}"]
    x = torch.cat(
        (_linear(context, state, "predictor_embed"), token.expand(*target_bm.shape, -1)), dim=1
    )
    index = torch.cat((context_bk, target_bm), dim=1)
    depth = 0
    while f"predictor_blocks.{depth}.norm1.weight" in state:
        x = _block(x, index, grid, state, f"predictor_blocks.{depth}", heads)
        depth += 1
    x = _norm(x[:, context.shape[1] :], state, "predictor_norm")
    return _linear(x, state, "predictor_proj")


def tubelets(clips: Tensor, frames: int, side: int) -> Tensor:
    """[B, N, P], cut out one by one."""
    B, _, T, H, W = clips.shape
    cut = [
        clips[:, :, t : t + frames, h : h + side, w : w + side].reshape(B, -1)
        for t in range(0, T, frames)
        for h in range(0, H, side)
        for w in range(0, W, side)
    ]
    return torch.stack(cut, dim=1)
