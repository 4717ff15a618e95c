"""Controls that keep an evaluation honest: what is left when something is taken away."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ClipControl = Callable[[Tensor, Tensor], Tensor]
"""Maps clips [b, V, C, T, H, W] and their rows, int64 [b], to clips of the same shape."""


def as_they_are(clips_bvcthw: Tensor, rows_b: Tensor) -> Tensor:
    """Changes nothing."""
    return clips_bvcthw


def frozen_frame(clips_bvcthw: Tensor, rows_b: Tensor) -> Tensor:
    """Repeats the middle frame of each clip: what is left has no motion."""
    middle = clips_bvcthw.shape[3] // 2
    return clips_bvcthw[:, :, :, middle : middle + 1].expand_as(clips_bvcthw)


class ShuffledFrames:
    """Puts the frames of each clip into a random order of its own: no temporal order is left.

    Args:
        videos: How many there are; an order depends on the video's row alone.
        frames: Of a clip.
        seed: Of the orders.
    """

    def __init__(self, videos: int, frames: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.order_nt = torch.rand(videos, frames, generator=generator).argsort(1)

    def __call__(self, clips_bvcthw: Tensor, rows_b: Tensor) -> Tensor:
        """Shuffles clips; all views of a video alike."""
        order_bt = self.order_nt[rows_b]
        return clips_bvcthw.gather(
            3, order_bt[:, None, None, :, None, None].expand_as(clips_bvcthw)
        )


def permuted(labels_n: Tensor, seed: int) -> Tensor:
    """Returns the labels in a random order: what is then reached is not learnt from classes."""
    order = torch.randperm(len(labels_n), generator=torch.Generator().manual_seed(seed))
    return labels_n[order]
