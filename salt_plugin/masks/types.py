"""What a mask is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.shapes import Grid


class MaskSet(NamedTuple):
    """One (context, target) pair of a batch.

    Attributes:
        context: int64 [B, K], ascending: the tokens that the encoder sees.
        target: int64 [B, M], ascending: the tokens to predict.
    """

    context: Tensor
    target: Tensor


class MaskGenerator(ABC):
    """Draws the mask sets of a batch; derive from it to add masks of your own."""

    @abstractmethod
    def __call__(self, batch_size: int, grid: Grid, generator: torch.Generator) -> list[MaskSet]:
        """Draws the mask sets of a batch.

        Args:
            batch_size: Clips in the batch, B.
            grid: Token grid of a clip.
            generator: Where all randomness comes from.
        """


def split_by_mask(target_bn: Tensor) -> MaskSet:
    """Turns a boolean map of targets into index lists cut to the shortest of the batch.

    Lists are cut from their end, as in V-JEPA's collator, so the last frames lose most.

    Args:
        target_bn: bool [B, N], true where a token is to be predicted.
    """
    counts = target_bn.sum(1)
    shortest_target = int(counts.min())
    shortest_context = target_bn.shape[1] - int(counts.max())
    # A stable sort puts the context's indices first and keeps both groups ascending.
    order = torch.sort(target_bn.to(torch.uint8), dim=1, stable=True).indices
    targets_first = torch.sort((~target_bn).to(torch.uint8), dim=1, stable=True).indices
    return MaskSet(
        context=order[:, :shortest_context].contiguous(),
        target=targets_first[:, :shortest_target].contiguous(),
    )
