"""Rotary self-attention over tokens of several mask sets laid end to end.

One pass serves all sets: norms, projections and MLPs work on tokens, and only attention needs to
know where one clip ends.

Positions are three-dimensional, in V-JEPA 2's layout. A head's channels are split into three runs
of 2 * ((d // 3) // 2), for time, height and width; what is left over is not rotated. Within a run
the pairs are neighbouring channels, but the frequencies are tiled over the run rather than
repeated pairwise: V-JEPA 2 was trained so, and its weights only make sense with it.

Rotating neighbours means reading every other channel, which no vector unit likes. A dot product
does not care about the order of its channels, so queries and keys are computed with the first of
every pair in the lower half of a head and the second in the upper half (`QKV` keeps the rows of
their projection so, and has V-JEPA's order in its state dict), and the rotation is a roll by half a
head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from salt_plugin.models.divided import divided_as, whole
from salt_plugin.shapes import Grid

# Without cuDNN's, which plans anew for every shape it meets: with masks of new lengths at each
# step, planning takes longer than the step (docs/benchmarks/gpu.md).
_GPU_KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]

# Beyond, the scores that the backward pass keeps take too much memory.
MOST_SCORED_TOKENS = 512

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


class QKV(nn.Linear):
    """Projection to queries, keys and values, whose rows are kept as `apply_rope` wants them.

    Files know nothing of that: state dicts, also those of an optimiser of
    `salt_plugin.methods.Recipe`, have V-JEPA's order.

    Args:
        dim: D.
        num_heads: Heads of the queries, and of the keys.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, 3 * dim)
        self.num_heads = num_heads

    def from_file(self, rows: Tensor) -> Tensor:
        """Returns rows [3 D, ...] of a file in the order in memory."""
        return self._reordered(rows, halves_first)

    def to_file(self, rows: Tensor) -> Tensor:
        """Returns rows [3 D, ...] in memory in the order of files."""
        return self._reordered(rows, pairs_together)

    def _reordered(self, rows: Tensor, reorder: Callable[[Tensor, int], Tensor]) -> Tensor:
        if rows.is_meta:  # has no values, and to move them would load torch._dynamo, for seconds
            return rows
        qk, v = whole(rows).tensor_split((2 * len(rows) // 3,))
        return divided_as(torch.cat((reorder(qk, 2 * self.num_heads), v)), rows)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if keep_vars:  # asks for the parameters themselves, as tracing does
            return
        for name, _ in self.named_parameters():
            destination[prefix + name] = self.to_file(destination[prefix + name])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name, own in self.named_parameters():
            rows = state_dict.get(prefix + name)
            if rows is not None and rows.shape == own.shape:
                state_dict[prefix + name] = self.from_file(rows)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class RopeAttention(nn.Module):
    """Self-attention whose queries and keys are rotated by their place in the clip."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = QKV(dim, num_heads)
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
        qkv_t3hd = self.qkv(x_td).unflatten(-1, (3, self.num_heads, -1))
        cos, sin = (table.unsqueeze(1) for table in rope)
        qk_t2hd = apply_rope(qkv_t3hd[:, :2], RopeTables(cos, sin))
        mixed = []
        parts = zip(unpack(qk_t2hd, segments), unpack(qkv_t3hd[:, 2], segments), strict=True)
        for i, (qk, v) in enumerate(parts):
            q_bhnd, k_bhnd = qk.permute(2, 0, 3, 1, 4)
            mask = None if allowed is None else allowed[i]
            mixed_bhnd = attention(q_bhnd, k_bhnd, v.transpose(1, 2), mask)
            mixed.append(mixed_bhnd.transpose(1, 2).flatten(2))
        return self.proj(pack(mixed))


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


def pairs_together(rows: Tensor, num_heads: int) -> Tensor:
    """Inverse of `halves_first`."""
    return rows.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).reshape(rows.shape)


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
    # A table that is kept must have values; and a compiler looks through the cache.
    plain = type(indices_bk) is Tensor and not torch.compiler.is_compiling()
    tables = _grid_tables if plain else _grid_tables.__wrapped__
    of_grid = tables(tuple(grid), head_dim, dtype, indices_bk.device)
    index_t = indices_bk.flatten()
    return RopeTables(*(table.index_select(0, index_t) for table in of_grid))


@lru_cache(maxsize=32)
def _grid_tables(grid: Grid, head_dim: int, dtype: torch.dtype, device: torch.device) -> RopeTables:
    """Returns the tables of all places of a grid, in their order."""
    with torch.inference_mode(False):
        axes = [torch.arange(length, device=device) for length in grid]
        places_n3 = torch.cartesian_prod(*axes)
        run = 2 * (head_dim // 3 // 2)
        exponent = torch.arange(run // 2, device=device, dtype=torch.float32) / (run / 2)
        angles = places_n3.unsqueeze(-1) * 10000.0**-exponent
        angles_nd = F.pad(angles.repeat(1, 1, 2).flatten(1), (0, head_dim - 3 * run))
        first_nh, second_nh = angles_nd[:, 0::2], angles_nd[:, 1::2]
        cos = torch.cat((first_nh.cos(), second_nh.cos()), dim=-1)
        sin = torch.cat((-first_nh.sin(), second_nh.sin()), dim=-1)
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


def attention(
    q_bhnd: Tensor, k_bhnd: Tensor, v_bhnd: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """Returns softmax(q k^T / sqrt(d)) v, over the keys that are allowed.

    It is torch's fused kernel, except in bfloat16 on CPUs, where products written out make a step
    up to a fifth faster (docs/benchmarks/plain.md).

    Args:
        q_bhnd: Queries [B, H, N, d].
        k_bhnd: Keys [B, H, N, d].
        v_bhnd: Values [B, H, N, d].
        allowed: bool [B or 1, 1, N, N], true where a query (row) may attend to a key (column);
            None: everywhere.

    Returns:
        [B, H, N, d].
    """
    device = q_bhnd.device.type
    if device == "cuda":
        with sdpa_kernel(_GPU_KERNELS):
            return F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd, attn_mask=allowed)
    few = q_bhnd.shape[-2] <= MOST_SCORED_TOKENS and not torch.compiler.is_compiling()
    if device == "cpu" and q_bhnd.dtype == torch.bfloat16 and few and allowed is None:
        scores_bhnn = q_bhnd * q_bhnd.shape[-1] ** -0.5 @ k_bhnd.transpose(-2, -1)
        return scores_bhnn.softmax(-1) @ v_bhnd
    return F.scaled_dot_product_attention(q_bhnd, k_bhnd, v_bhnd, attn_mask=allowed)
