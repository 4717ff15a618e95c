"""torch's own counter, and index lists to count with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def torch_flops(run: Callable[[], Any]) -> int:
    """FLOPs of what `run` does; on CPUs the counter sees attention only where it is written out."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def indices(batch_size: int, count: int, tokens: int) -> torch.Tensor:
    return torch.stack([torch.randperm(tokens)[:count].sort().values for _ in range(batch_size)])
