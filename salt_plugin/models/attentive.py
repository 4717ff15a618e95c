"""The attentive probe: what a small transformer with one query reads off frozen tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_

from salt_plugin.models.block import Mlp
from salt_plugin.shapes import ATTENTIVE_DEPTH, ATTENTIVE_HEADS, ATTENTIVE_MLP_RATIO

INIT_STD = 0.02


def heads_that_divide(dim: int, most: int) -> int:
    """Returns the largest number of heads up to `most` that divides the width."""
    return next(heads for heads in range(min(dim, most), 0, -1) if dim % heads == 0)


class AttentiveProbe(nn.Module):
    """V-JEPA 2's attentive classifier: self-attention, one learned query, a linear classifier.

    Printed in SALT's section 6: four blocks, the last of which is a cross-attention with one
    query, and a linear classifier. From V-JEPA 2's repository: pre-norm blocks without positions
    and with an MLP of ratio 4; a cross-attention whose query is not normalised and whose output is
    not projected; no norm before the classifier; LayerNorm's epsilon of 1e-5; 16 heads; the initial
    weights; and the names of the parameters, so that its classifiers load. Ours: the rule for
    widths that the heads do not divide.

    Args:
        dim: Width D of the tokens.
        num_classes: C.
        num_heads: Heads of every attention; the largest smaller number is taken where it does not
            divide the width.
        depth: Blocks in all, at least 1: `depth - 1` of self-attention and one of cross-attention.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        num_heads: int = ATTENTIVE_HEADS,
        depth: int = ATTENTIVE_DEPTH,
    ) -> None:
        super().__init__()
        self.dim, self.num_classes, self.depth = dim, num_classes, depth
        self.num_heads = heads_that_divide(dim, num_heads)
        self.pooler = AttentivePooler(dim, self.num_heads, depth)
        # torch's own initial weights, as in V-JEPA 2.
        self.linear = nn.Linear(dim, num_classes)

    def forward(self, tokens_bnd: Tensor) -> Tensor:
        """Returns logits [B, C] of tokens [B, N, D]."""
        return self.linear(self.pooler(tokens_bnd))

    def attention(self, tokens_bnd: Tensor) -> Tensor:
        """Returns how the query attends to tokens [B, N, D]: [B, heads, N], a row sums to one."""
        pooler = self.pooler
        return pooler.cross_attention_block.weights(pooler.query_tokens, pooler.encode(tokens_bnd))


class AttentivePooler(nn.Module):
    """What the attentive probe does before its linear classifier: tokens [B, N, D] to [B, D].

    Args:
        dim: Width D of the tokens.
        num_heads: Heads of every attention; they divide the width.
        depth: Blocks in all, as of `AttentiveProbe`.
    """

    def __init__(self, dim: int, num_heads: int, depth: int) -> None:
        from timm.models.vision_transformer import Block  # seconds

        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, 1, dim))
        self.cross_attention_block = _CrossBlock(dim, num_heads)
        blocks: list[Any] = [
            Block(dim, num_heads, ATTENTIVE_MLP_RATIO, qkv_bias=True, norm_layer=nn.LayerNorm)
            for _ in range(depth - 1)
        ]
        self.blocks = nn.ModuleList(blocks)
        self._init_weights(blocks)

    def _init_weights(self, blocks: list[Any]) -> None:
        trunc_normal_(self.query_tokens, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=INIT_STD)
                zeros_(module.bias)
        for i, block in enumerate(blocks, start=1):
            block.attn.proj.weight.data.div_(math.sqrt(2 * i))
            block.mlp.fc2.weight.data.div_(math.sqrt(2 * i))
        # V-JEPA 2 gives it the factor of the last block, not the next.
        self.cross_attention_block.mlp.fc2.weight.data.div_(math.sqrt(2 * max(1, len(blocks))))

    def encode(self, tokens_bnd: Tensor) -> Tensor:
        """Returns the tokens [B, N, D] that the query reads."""
        block: Any
        for block in self.blocks:
            # On CPUs attention is faster written out (docs/benchmarks/plain.md).
            block.attn.fused_attn = tokens_bnd.device.type != "cpu"
            tokens_bnd = block(tokens_bnd)
        return tokens_bnd

    def forward(self, tokens_bnd: Tensor) -> Tensor:
        """Returns features [B, D] of tokens [B, N, D]."""
        return self.cross_attention_block(self.query_tokens, self.encode(tokens_bnd)).squeeze(1)


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, query_1qd: Tensor, x_bnd: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what is mixed [B, Q, D], and the weights of the mixture [B, H, Q, N]."""
        q_1hqd = self.q(query_1qd).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k_bhnd, v_bhnd = (
            self.kv(x_bnd).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        scale = q_1hqd.shape[-1] ** -0.5
        weights_bhqn = (q_1hqd * scale @ k_bhnd.transpose(-2, -1)).softmax(-1)
        return (weights_bhqn @ v_bhnd).transpose(1, 2).flatten(2), weights_bhqn


class _CrossBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.xattn = _CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, ATTENTIVE_MLP_RATIO * dim)

    def forward(self, query_1qd: Tensor, x_bnd: Tensor) -> Tensor:
        query_bqd = query_1qd + self.xattn(query_1qd, self.norm1(x_bnd))[0]
        return query_bqd + self.mlp(self.norm2(query_bqd))

    def weights(self, query_1qd: Tensor, x_bnd: Tensor) -> Tensor:
        return self.xattn(query_1qd, self.norm1(x_bnd))[1].squeeze(2)
