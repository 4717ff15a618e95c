"""What a mask is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
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

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> MaskSet:
        """Returns the mask set on a device; see `torch.Tensor.to`."""
        return MaskSet(*(index.to(device, non_blocking=non_blocking) for index in self))


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


def split_by_mask(target_bs: Tensor | np.ndarray, frames: int = 1) -> MaskSet:
    """Turns a boolean map of targets into index lists cut to the shortest of the batch.

    Lists are cut from their end, as in V-JEPA's collator, so the last frames lose most.

    Args:
        target_bs: bool [B, N], true where a token is to be predicted; or [B, H * W] where that is
            the same in all frames.
        frames: Token frames that the map repeats in.
    """
    target = np.asarray(target_bs)
    return MaskSet(_tokens(~target, frames), _tokens(target, frames))


def _tokens(chosen_bs: np.ndarray, frames: int) -> Tensor:
    """Returns int64 [B, K]: the first K chosen tokens of each clip, K the fewest of any."""
    B, S = chosen_bs.shape
    counts_b = chosen_bs.sum(1) * frames
    shortest = int(counts_b.min())
    if shortest == 0:
        return torch.empty(B, 0, dtype=torch.int64)
    flat = np.flatnonzero(np.repeat(chosen_bs[:, None], frames, axis=1))
    # A clip's tokens are a run of `flat`: taking windows is faster than gathering one by one.
    windows_nk = np.ndarray(
        (len(flat) - shortest + 1, shortest), flat.dtype, flat, strides=(flat.itemsize,) * 2
    )
    tokens_bk = windows_nk[np.cumsum(counts_b) - counts_b]
    tokens_bk -= np.arange(0, B * S * frames, S * frames)[:, None]
    return torch.from_numpy(tokens_bk)
