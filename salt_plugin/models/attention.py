"""Softmax attention, by the fastest exact route of each device."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores of one block of heads stay in the cache of a core.
BLOCK_BYTES = 4_000_000
# Up to here the probabilities are kept for the backward pass; beyond, they are computed again.
KEPT_BYTES = 64_000_000


def attention(q_bhnd: Tensor, k_bhnd: Tensor, v_bhnd: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(d)) v.

    torch's fused kernel, but in bfloat16 on CPUs, where matrix products over blocks of heads take
    a third to a half of its time (docs/benchmarks/step.md).

    Args:
        q_bhnd: Queries [B, H, N, d].
        k_bhnd: Keys [B, H, N, d].
        v_bhnd: Values [B, H, N, d].

    Returns:
        [B, H, N, d].
    """
    if q_bhnd.device.type == "cpu" and q_bhnd.dtype == torch.bfloat16:
        return blocked_attention(q_bhnd, k_bhnd, v_bhnd)
    return F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd)


def blocked_attention(q_bhnd: Tensor, k_bhnd: Tensor, v_bhnd: Tensor) -> Tensor:
    """The same by matrix products, a few heads at a time so that their scores stay in cache.

    In bfloat16 the scores are rounded before the softmax, as wherever attention is written out
    under autocast.
    """
    B, H, N, d = q_bhnd.shape
    scaled = (q_bhnd * d**-0.5).reshape(B * H, N, d)
    k, v = k_bhnd.reshape(B * H, N, d), v_bhnd.reshape(B * H, N, d)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (scaled, k, v)):
        mixed = _BlockedAttention.apply(scaled, k, v)
    else:
        mixed = _mix(scaled, k, v, kept=None)
    return mixed.view(B, H, N, d)


def _heads_at_a_time(q_gnd: Tensor) -> int:
    scores = q_gnd.shape[1] ** 2 * q_gnd.element_size()
    return max(1, BLOCK_BYTES // scores)


def _mix(q_gnd: Tensor, k_gnd: Tensor, v_gnd: Tensor, kept: list[Tensor] | None) -> Tensor:
    step = _heads_at_a_time(q_gnd)
    blocks = zip(q_gnd.split(step), k_gnd.split(step), v_gnd.split(step), strict=True)
    mixed = []
    for q, k, v in blocks:
        weights = torch.bmm(q, k.transpose(1, 2)).softmax(-1)
        mixed.append(torch.bmm(weights, v))
        if kept is not None:
            kept.append(weights)
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


class _BlockedAttention(torch.autograd.Function):
    """Attention of already scaled queries, all [G, N, d], over G heads of all clips."""

    @staticmethod
    def forward(ctx: Any, q_gnd: Tensor, k_gnd: Tensor, v_gnd: Tensor) -> Tensor:
        G, N, _ = q_gnd.shape
        kept: list[Tensor] | None = []
        if G * N**2 * q_gnd.element_size() > KEPT_BYTES:
            kept = None
        mixed = _mix(q_gnd, k_gnd, v_gnd, kept)
        ctx.save_for_backward(q_gnd, k_gnd, v_gnd, *(kept or ()))
        return mixed

    @staticmethod
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_gnd, k_gnd, v_gnd, *kept = ctx.saved_tensors
        d_mixed = d_mixed.contiguous()
        dq, dk, dv = (torch.empty_like(x) for x in (q_gnd, k_gnd, v_gnd))
        step = _heads_at_a_time(q_gnd)
        for i, start in enumerate(range(0, len(q_gnd), step)):
            block = slice(start, start + step)
            q, k, v, d_out = q_gnd[block], k_gnd[block], v_gnd[block], d_mixed[block]
            weights = kept[i] if kept else torch.bmm(q, k.transpose(1, 2)).softmax(-1)
            torch.bmm(weights.transpose(1, 2), d_out, out=dv[block])
            d_weights = torch.bmm(d_out, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            torch.bmm(d_scores, k, out=dq[block])
            torch.bmm(d_scores.transpose(1, 2), q, out=dk[block])
        return dq, dk, dv
