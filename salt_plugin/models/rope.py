"""Three-dimensional rotary positions in V-JEPA 2's layout.

A head's channels are split into three runs of 2 * ((d // 3) // 2), for time, height and width;
what is left over is not rotated. Within a run the pairs are neighbouring channels, but the
frequencies are tiled over the run rather than repeated pairwise: V-JEPA 2 was trained so, and
its weights only make sense with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.shapes import Grid


def rope_tables(
    indices_bk: Tensor, grid: Grid, head_dim: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine for tokens at the given places of a grid.

    Args:
        indices_bk: int64 [B, K], row-major token indices.
        grid: The grid that the indices count in.
        head_dim: Channels d of a head.
        dtype: Type of the tables.

    Returns:
        Two tensors [B, 1, K, d], to be shared by all heads of all blocks.
    """
    _, height, width = grid
    per_frame = height * width
    positions_bk3 = torch.stack(
        (
            indices_bk // per_frame,
            indices_bk % per_frame // width,
            indices_bk % width,
        ),
        dim=-1,
    )
    run = 2 * (head_dim // 3 // 2)
    exponent = torch.arange(run // 2, device=indices_bk.device, dtype=torch.float32) / (run / 2)
    angles = positions_bk3.unsqueeze(-1) * 10000.0**-exponent
    angles = angles.repeat(1, 1, 1, 2).flatten(2)
    angles = F.pad(angles, (0, head_dim - 3 * run)).unsqueeze(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates neighbouring channel pairs of [..., K, d] by the tables of `rope_tables`."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack((-odd, even), dim=-1).flatten(-2) * sin
