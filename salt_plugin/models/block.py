"""Pre-norm transformer blocks with rotary attention, with V-JEPA 2's parameter names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_
from torch.utils.checkpoint import checkpoint

from salt_plugin.models.attention import QKV, RopeAttention, RopeTables, Segments, pack

NORM_EPS = 1e-6
# V-JEPA's, at every width.
INIT_STD = 0.02


class Mlp(nn.Module):
    """timm's, without its options: importing timm takes seconds."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Maps tokens [..., D] to [..., D]."""
        return self.fc2(self.act(self.fc1(x_nd)))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the stream."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = RopeAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, hidden_dim)
        self.drop_path = drop_path

    def forward(
        self,
        x_td: Tensor,
        rope: RopeTables,
        segments: Segments,
        allowed: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Maps packed tokens [T, D] to [T, D]; see `RopeAttention` for what is `allowed`."""
        mixed_td = self.attn(self.norm1(x_td), rope, segments, allowed)
        x_td = x_td + _scaled(mixed_td, self._kept(x_td, segments))
        return x_td + _scaled(self.mlp(self.norm2(x_td)), self._kept(x_td, segments))

    def _kept(self, x_td: Tensor, segments: Segments) -> Tensor | None:
        """Draws stochastic depth, a clip of a mask set at a time: factors [T, 1]."""
        if not self.training or self.drop_path == 0:
            return None
        clips, tokens = zip(*segments, strict=True)
        keep = 1 - self.drop_path
        factor = x_td.new_empty(sum(clips), 1).bernoulli_(keep).div_(keep)
        return pack(
            [
                part.unsqueeze(1).expand(-1, length, -1)
                for part, length in zip(factor.split(clips), tokens, strict=True)
            ]
        )


class BlockInput(NamedTuple):
    """What `BlockStack` takes: packed tokens [T, D], and what `RopeAttention` needs of them."""

    x_td: Tensor
    rope: RopeTables
    segments: Segments
    allowed: Sequence[Tensor] | None = None


class BlockStack(nn.ModuleList):
    """Blocks one after the other.

    Attributes:
        activation_checkpointing: Keep only what goes into a block and compute the rest again in
            the backward pass: less memory for about a third more time.
    """

    activation_checkpointing = False

    def compile_blocks(self) -> None:
        """Compiles the blocks at their next use; lengths stay dynamic."""
        for block in self:
            block.compile(dynamic=True)

    def forward(
        self,
        x_td: Tensor,
        rope: RopeTables,
        segments: Segments,
        allowed: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Maps packed tokens [T, D] to [T, D]; see `RopeAttention` for what is `allowed`."""
        for after_td in self.each(x_td, rope, segments, allowed):
            x_td = after_td
        return x_td

    def each(
        self,
        x_td: Tensor,
        rope: RopeTables,
        segments: Segments,
        allowed: Sequence[Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """Yields what `forward` returns after the first block, after the second, and so on."""
        for block in self:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_td = checkpoint(block, x_td, rope, segments, allowed, use_reentrant=False)
            else:
                x_td = block(x_td, rope, segments, allowed)
            yield x_td


def _scaled(branch_td: Tensor, factor_t1: Tensor | None) -> Tensor:
    return branch_td if factor_t1 is None else branch_td * factor_t1


def init_weights(root: nn.Module, std: float) -> None:
    """Truncated normal weights and zero biases, as V-JEPA."""
    for module in root.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            trunc_normal_(module.weight, std=std)
            if isinstance(module, QKV):  # drawn in the order of files
                module.weight.data.copy_(module.from_file(module.weight.data))
            if module.bias is not None:
                zeros_(module.bias)


def rescale_residuals(blocks: Iterable[Block]) -> None:
    """Divides what block i adds to the stream by sqrt(2 i), as V-JEPA."""
    for depth, block in enumerate(blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            weight.data.div_(math.sqrt(2.0 * depth))
