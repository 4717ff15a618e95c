"""Rotary self-attention over tokens of several mask sets laid end to end.

One pass serves all sets: norms, projections and MLPs work on tokens, and only attention needs to
know where one clip ends. The softmax takes the fastest exact route of each device.

Positions are three-dimensional, in V-JEPA 2's layout. A head's channels are split into three runs
of 2 * ((d // 3) // 2), for time, height and width; what is left over is not rotated. Within a run
the pairs are neighbouring channels, but the frequencies are tiled over the run rather than
repeated pairwise: V-JEPA 2 was trained so, and its weights only make sense with it.

Rotating neighbours means reading every other channel, which no vector unit likes. A dot product
does not care about the order of its channels, so queries and keys are computed with the first of
every pair in the lower half of a head and the second in the upper half (`halves_first` permutes
the rows of their projection), and the rotation is a roll by half a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from salt_plugin.models.block_causal import masked_attention
from salt_plugin.shapes import Grid

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

Segments = tuple[tuple[int, int], ...]
"""(clips, tokens of each clip) of every mask set; T is the sum of their products."""


def segments_of(tensors: Sequence[Tensor]) -> Segments:
    """Returns the segments of tensors [B, K, ...]."""
    return tuple((tensor.shape[0], tensor.shape[1]) for tensor in tensors)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Lays tensors [B, K, D], of different K, end to end: [T, D]."""
    flat = [tensor.flatten(0, 1) for tensor in tensors]
    return torch.cat(flat) if len(flat) > 1 else flat[0]


def unpack(packed_td: Tensor, segments: Segments) -> list[Tensor]:
    """Inverse of `pack`: views [B, K, ...] of [T, ...]."""
    parts = packed_td.split([clips * tokens for clips, tokens in segments])
    return [part.unflatten(0, segment) for part, segment in zip(parts, segments, strict=True)]


class RopeAttention(nn.Module):
    """Self-attention whose queries and keys are rotated by their place in the clip."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x_td: Tensor,
        rope: RopeTables,
        segments: Segments,
        allowed: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Mixes packed tokens [T, D] within each clip: [T, D].

        Args:
            x_td: Tokens of all segments.
            rope: Their tables.
            segments: Where clips end.
            allowed: For each segment bool [B or 1, 1, K, K], as `block_causal_mask`; None: tokens
                attend to all of their clip.
        """
        weight, bias = (self._halves(rows) for rows in (self.qkv.weight, self.qkv.bias))
        qkv_t3hd = F.linear(x_td, weight, bias).unflatten(-1, (3, self.num_heads, -1))
        cos, sin = (table.unsqueeze(1) for table in rope)
        qk_t2hd = apply_rope(qkv_t3hd[:, :2], RopeTables(cos, sin))
        mixed = []
        parts = zip(unpack(qk_t2hd, segments), unpack(qkv_t3hd[:, 2], segments), strict=True)
        for i, (qk, v) in enumerate(parts):
            q_bhnd, k_bhnd = qk.permute(2, 0, 3, 1, 4)
            if allowed is None:
                mixed_bhnd = attention(q_bhnd, k_bhnd, v.transpose(1, 2))
            else:
                mixed_bhnd = masked_attention(q_bhnd, k_bhnd, v.transpose(1, 2), allowed[i])
            mixed.append(mixed_bhnd.transpose(1, 2).flatten(2))
        return self.proj(pack(mixed))

    def _halves(self, rows: Tensor) -> Tensor:
        qk, v = rows.tensor_split((2 * len(rows) // 3,))
        return torch.cat((halves_first(qk, 2 * self.num_heads), v))


class RopeTables(NamedTuple):
    """What `apply_rope` multiplies with, for tokens laid end to end.

    Attributes:
        cos: [T, 1, d], in the halves layout.
        sin: [T, 1, d], negative in the lower half.
    """

    cos: Tensor
    sin: Tensor


def halves_first(rows: Tensor, num_heads: int) -> Tensor:
    """Reorders the rows (or the last axis of a vector) of a projection to heads' halves.

    Args:
        rows: [H * d, ...], where channel c of head h is row h * d + c.
        num_heads: H.

    Returns:
        The same shape: in each head the even channels, then the odd ones.
    """
    return rows.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).reshape(rows.shape)


def rope_tables(indices_bk: Tensor, grid: Grid, head_dim: int, dtype: torch.dtype) -> RopeTables:
    """Returns the tables for tokens at the given places of a grid.

    Args:
        indices_bk: int64 [B, K], row-major token indices.
        grid: The grid that the indices count in.
        head_dim: Channels d of a head.
        dtype: Type of the tables.

    Returns:
        Tables of B * K tokens, to be shared by all heads of all blocks.
    """
    _, height, width = grid
    per_frame = height * width
    index_t = indices_bk.flatten()
    places_t3 = torch.stack(
        (index_t // per_frame, index_t % per_frame // width, index_t % width), dim=-1
    )
    run = 2 * (head_dim // 3 // 2)
    exponent = torch.arange(run // 2, device=index_t.device, dtype=torch.float32) / (run / 2)
    angles = places_t3.unsqueeze(-1) * 10000.0**-exponent
    angles_td = F.pad(angles.repeat(1, 1, 2).flatten(1), (0, head_dim - 3 * run))
    first_th, second_th = angles_td[:, 0::2], angles_td[:, 1::2]
    cos = torch.cat((first_th.cos(), second_th.cos()), dim=-1)
    sin = torch.cat((-first_th.sin(), second_th.sin()), dim=-1)
    return RopeTables(cos.unsqueeze(1).to(dtype), sin.unsqueeze(1).to(dtype))


def rope_tables_of(
    indices: Sequence[Tensor], grid: Grid, head_dim: int, dtype: torch.dtype
) -> RopeTables:
    """Returns the tables for several sets of indices [B, K], laid end to end."""
    index_t1 = pack([index_bk.unsqueeze(-1) for index_bk in indices])
    return rope_tables(index_t1, grid, head_dim, dtype)


def apply_rope(x_thd: Tensor, rope: RopeTables) -> Tensor:
    """Rotates heads [..., T, H, d] in the halves layout by the tables of `rope_tables`."""
    return x_thd * rope.cos + x_thd.roll(x_thd.shape[-1] // 2, dims=-1) * rope.sin


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
