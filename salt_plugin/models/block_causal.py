"""Block-causal attention: bidirectional within a frame, causal over frames."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from salt_plugin.shapes import Grid


def block_causal_mask(indices_bk: Tensor, grid: Grid, cls_token: bool) -> Tensor:
    """Returns which token may attend to which.

    A token attends to those of its own frame and of earlier ones. `[cls]` counts as a frame after
    the last: it attends to all tokens, and none but itself attends to it.

    Args:
        indices_bk: int64 [B, K], row-major token indices; of `[cls]`, the first, any.
        grid: The grid that the indices count in.
        cls_token: Whether the first token is `[cls]`.

    Returns:
        bool [B, 1, K, K], true where a query (row) may attend to a key (column); [1, 1, K, K]
        where the indices are one row that was expanded.
    """
    frames, height, width = grid
    if indices_bk.stride(0) == 0:
        indices_bk = indices_bk[:1]
    frame_bk = indices_bk // (height * width)
    if cls_token:
        frame_bk = F.pad(frame_bk[:, 1:], (1, 0), value=frames)
    return (frame_bk.unsqueeze(1) <= frame_bk.unsqueeze(2)).unsqueeze(1)
