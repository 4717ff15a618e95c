"""Three-dimensional rotary positions in V-JEPA 2's layout.

A head's channels are split into three runs of 2 * ((d // 3) // 2), for time, height and width;
what is left over is not rotated. Within a run the pairs are neighbouring channels, but the
frequencies are tiled over the run rather than repeated pairwise: V-JEPA 2 was trained so, and
its weights only make sense with it.

Rotating neighbours means reading every other channel, which no vector unit likes. A dot product
does not care about the order of its channels, so queries and keys are computed with the first of
every pair in the lower half of a head and the second in the upper half (`halves_first` permutes
the rows of their projection), and the rotation is a roll by half a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.models.packing import pack
from salt_plugin.shapes import Grid


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
