"""A pre-norm transformer block with rotary attention, with V-JEPA 2's parameter names."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from salt_plugin.models.rope import apply_rope

NORM_EPS = 1e-6
# V-JEPA's, at every width.
INIT_STD = 0.02


class RopeAttention(nn.Module):
    """Self-attention whose queries and keys are rotated by their place in the clip."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_bnd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Maps [B, N, D] to [B, N, D]; the tables are [B, 1, N, D / heads]."""
        B, N, D = x_bnd.shape
        qkv = self.qkv(x_bnd).view(B, N, 3, self.num_heads, D // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        q, k = apply_rope(qkv[:2], cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, qkv[2])
        return self.proj(mixed.transpose(1, 2).reshape(B, N, D))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the stream."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = RopeAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, hidden_dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x_bnd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Maps [B, N, D] to [B, N, D]."""
        x_bnd = x_bnd + self.drop_path(self.attn(self.norm1(x_bnd), cos, sin))
        return x_bnd + self.drop_path(self.mlp(self.norm2(x_bnd)))


def init_weights(root: nn.Module, std: float) -> None:
    """Truncated normal weights and zero biases, as V-JEPA."""
    for module in root.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                zeros_(module.bias)


def rescale_residuals(blocks: Iterable[Block]) -> None:
    """Divides what block i adds to the stream by sqrt(2 i), as V-JEPA."""
    for depth, block in enumerate(blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            weight.data.div_(math.sqrt(2.0 * depth))
