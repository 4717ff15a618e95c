"""Tensors of which each process has a part, as FSDP2 leaves parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor in one piece; where it is divided, every process has to call this."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def divided_as(tensor: Tensor, like: Any) -> Tensor:
    """Returns a whole tensor divided as another, on its device; as it is where that is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # takes a second to import

    # Each process has it all and keeps its part: nothing is sent.
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
