"""Softmax attention, by the fastest exact route of each device."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# Without cuDNN's, which plans anew for every shape it meets: with masks of new lengths at each
# step, planning takes longer than the step (docs/benchmarks/gpu.md).
_GPU_KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]

# Scores of one block of heads stay in the cache of a core.
BLOCK_BYTES = 4_000_000
# Up to here the probabilities are kept for the backward pass; beyond, they are computed again.
KEPT_BYTES = 64_000_000
# Scores that cannot exceed this are exponentiated as they are; beyond, after their row's maximum.
SAFE_SCORE = 30.0


def attention(q_bhnd: Tensor, k_bhnd: Tensor, v_bhnd: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(d)) v.

    torch's fused kernel, but in bfloat16 on CPUs, where matrix products over blocks of heads take
    a third to a half of its time (docs/benchmarks/step.md). Where a graph is made of it, the fused
    kernel there too: blocks choose by values, which no graph can.

    Args:
        q_bhnd: Queries [B, H, N, d].
        k_bhnd: Keys [B, H, N, d].
        v_bhnd: Values [B, H, N, d].

    Returns:
        [B, H, N, d].
    """
    on_cpu = q_bhnd.device.type == "cpu"
    if on_cpu and q_bhnd.dtype == torch.bfloat16 and not torch.compiler.is_compiling():
        return blocked_attention(q_bhnd, k_bhnd, v_bhnd)
    if q_bhnd.device.type == "cuda":
        with sdpa_kernel(_GPU_KERNELS):
            return F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd)
    return F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd)


def blocked_attention(q_bhnd: Tensor, k_bhnd: Tensor, v_bhnd: Tensor) -> Tensor:
    """The same by matrix products, a few heads at a time so that their scores stay in cache.

    Where the norms of queries and keys bound the scores, the softmax is one exponential a score: a
    column of ones beside the values sums the rows, and what is mixed is divided, not the scores.
    The row's part of the softmax's gradient likewise is one more column.

    In bfloat16 the scores are rounded before the softmax, as wherever attention is written out
    under autocast.
    """
    B, H, N, d = q_bhnd.shape
    scaled = (q_bhnd * d**-0.5).reshape(B * H, N, d)
    k, v = k_bhnd.reshape(B * H, N, d), v_bhnd.reshape(B * H, N, d)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (scaled, k, v)):
        mixed = _BlockedAttention.apply(scaled, k, v)
    else:
        mixed, _ = _mix(scaled, k, _with_ones(v), _bounds(scaled, k), kept=None)
    return mixed.view(B, H, N, d)


def _heads_at_a_time(q_gnd: Tensor) -> int:
    scores = q_gnd.shape[1] ** 2 * q_gnd.element_size()
    return max(1, BLOCK_BYTES // scores)


def _with_ones(v_gnd: Tensor) -> Tensor:
    return F.pad(v_gnd, (0, 1), value=1.0)


def _bounds(q_gnd: Tensor, k_gnd: Tensor) -> Tensor:
    """Returns what no score of a head exceeds: [G], by Cauchy-Schwarz."""
    longest = [torch.linalg.vector_norm(x.detach(), dim=-1).amax(1) for x in (q_gnd, k_gnd)]
    return longest[0].float() * longest[1].float()


def _weigh(q_gnd: Tensor, k_gnd: Tensor, bounds_g: Tensor) -> Tensor:
    """Returns the weights [G, N, N] of a block; their rows sum to one only after division."""
    scores = torch.bmm(q_gnd, k_gnd.transpose(1, 2))
    # False for what is not a number, too.
    return scores.exp_() if bool(bounds_g.amax() <= SAFE_SCORE) else scores.softmax(-1)


def _mix(
    q_gnd: Tensor, k_gnd: Tensor, v1_gne: Tensor, bounds_g: Tensor, kept: list[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Returns the mixed values [G, N, d], and 1 / the sums of the weights [G, N, 1]."""
    step = _heads_at_a_time(q_gnd)
    summed = torch.empty_like(v1_gne)
    for start in range(0, len(q_gnd), step):
        block = slice(start, start + step)
        weights = _weigh(q_gnd[block], k_gnd[block], bounds_g[block])
        torch.bmm(weights, v1_gne[block], out=summed[block])
        if kept is not None:
            kept.append(weights)
    inverse = summed[..., -1:].reciprocal()
    return summed[..., :-1] * inverse, inverse


class _BlockedAttention(torch.autograd.Function):
    """Attention of already scaled queries, all [G, N, d], over G heads of all clips."""

    @staticmethod
    def forward(ctx: Any, q_gnd: Tensor, k_gnd: Tensor, v_gnd: Tensor) -> Tensor:
        G, N, _ = q_gnd.shape
        kept: list[Tensor] | None = []
        if G * N**2 * q_gnd.element_size() > KEPT_BYTES:
            kept = None
        v1_gne, bounds_g = _with_ones(v_gnd), _bounds(q_gnd, k_gnd)
        mixed, inverse = _mix(q_gnd, k_gnd, v1_gne, bounds_g, kept)
        ctx.save_for_backward(q_gnd, k_gnd, v1_gne, bounds_g, mixed, inverse, *(kept or ()))
        return mixed

    @staticmethod
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_gnd, k_gnd, v1_gne, bounds_g, mixed, inverse, *kept = ctx.saved_tensors
        row = (d_mixed * mixed).sum(-1, keepdim=True)
        d_summed = torch.cat((d_mixed, -row), -1) * inverse
        dq, dk, dv1 = (torch.empty_like(x) for x in (q_gnd, k_gnd, v1_gne))
        step = _heads_at_a_time(q_gnd)
        for i, start in enumerate(range(0, len(q_gnd), step)):
            block = slice(start, start + step)
            q, k, d_out = q_gnd[block], k_gnd[block], d_summed[block]
            weights = kept[i] if kept else _weigh(q, k, bounds_g[block])
            torch.bmm(weights.transpose(1, 2), d_out, out=dv1[block])
            d_scores = torch.bmm(d_out, v1_gne[block].transpose(1, 2)).mul_(weights)
            torch.bmm(d_scores, k, out=dq[block])
            torch.bmm(d_scores.transpose(1, 2), q, out=dk[block])
        return dq, dk, dv1[..., :-1]
