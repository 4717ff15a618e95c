"""Controls that keep an evaluation honest: what is left when something is taken away."""

from __future__ import annotations

import torch
from torch import Tensor


def frozen_frame(clips_bvcthw: Tensor) -> Tensor:
    """Repeats the middle frame of each clip [B, V, C, T, H, W]: no motion is left."""
    middle = clips_bvcthw.shape[3] // 2
    return clips_bvcthw[:, :, :, middle : middle + 1].expand_as(clips_bvcthw)


def frame_orders(videos: int, frames: int, seed: int) -> Tensor:
    """Returns a random order of the frames of each video, int64 [videos, frames]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(videos, frames, generator=generator).argsort(1)


def shuffled(clips_bvcthw: Tensor, order_bt: Tensor) -> Tensor:
    """Puts the frames of clips [B, V, C, T, H, W] into an order, all views of a video alike."""
    order = order_bt[:, None, None, :, None, None]
    return clips_bvcthw.gather(3, order.expand_as(clips_bvcthw))


def permuted(labels_n: Tensor, seed: int) -> Tensor:
    """Returns the labels in a random order: what is then reached is not learnt from classes."""
    order = torch.randperm(len(labels_n), generator=torch.Generator().manual_seed(seed))
    return labels_n[order]
