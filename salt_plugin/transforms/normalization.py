"""Pixels to what models see, on the device that clips are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """What uint8 clips are normalised by: x / 255, less the mean, over the standard deviation.

    Attributes:
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.
    """

    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __call__(self, clips: Tensor) -> Tensor:
        """Normalises uint8 clips; floats are taken to be normalised and returned as they are.

        Args:
            clips: [..., C, T, H, W].

        Returns:
            float32 of the same shape, or the floats.
        """
        if clips.is_floating_point():
            return clips
        scaled = clips.to(torch.float32).mul_(1 / 255)
        # By numbers: a tensor of them would have to be moved, and waited for, at each step.
        for channel, mean, std in zip(scaled.unbind(-4), self.mean, self.std, strict=True):
            channel.sub_(mean).div_(std)
        return scaled

    def undo(self, clips: Tensor) -> Tensor:
        """Returns values in [0, 1] of clips [..., C, T, H, W], of uint8 or normalised."""
        if not clips.is_floating_point():
            return clips / 255
        shape = (-1, 1, 1, 1)
        scaled = clips * clips.new_tensor(self.std).view(shape)
        return (scaled + clips.new_tensor(self.mean).view(shape)).clamp(0, 1)
