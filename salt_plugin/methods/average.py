"""Moving averages of encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rising(momentum: float, position: float) -> float:
    """Returns the momentum after the step at `position`, counted from 0.

    It is min(momentum, (1 + position) / (10 + position)), so that a short run does not keep its
    random start.
    """
    return min(momentum, (1 + position) / (10 + position)) if momentum else 0.0


@torch.no_grad()
def follow(average: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """Makes each weight momentum times its average, plus the rest of the encoder's."""
    followed: list[Tensor] = list(average.parameters())
    weights: list[Tensor] = list(encoder.parameters())
    torch._foreach_lerp_(followed, weights, 1 - momentum)
