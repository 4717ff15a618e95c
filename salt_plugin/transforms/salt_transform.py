"""Augmentation of clips for training, and the fixed view for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD, Normalization, Views
from salt_plugin.errors import ConfigError

if TYPE_CHECKING:  # which loads torch._dynamo: seconds
    from torchvision.transforms import v2


class SALTTransform:
    """Implements the view augmentation for SALT and the pixel teacher.

    A class from it may have `local_views` and give `Views`.

    Input to this transform:
        Tensor of uint8 frames [T, C, H, W].

    Output of this transform:
        Tensor of uint8 [C, T, H, W], one clip. `normalization` makes float32 of a batch of them,
        on the device that trains.

    Applies the following augmentations by default (optimisation recipe of the paper), with one
    crop and one flip for all frames:
        - Random resized crop
        - Random horizontal flip

    Attributes:
        size:
            Size of the clip in pixels, one number or (height, width).
        scale:
            Smallest and largest share of the frame's area that the crop covers.
        ratio:
            Smallest and largest aspect ratio (width / height) of the crop.
        hflip:
            Probability of the flip.
        mean:
            Mean of each channel, for values in [0, 1].
        std:
            Standard deviation of each channel.
    """

    local_views = 0

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.75, 1.35),
        hflip: float = 0.5,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        self.size = checked_size(size)
        self.mean, self.std = list(mean), list(std)
        self.transform = crop_and_flip(self.size, scale, ratio, hflip)

    @property
    def normalization(self) -> Normalization:
        """What clips are normalised by."""
        return Normalization(self.mean, self.std)

    def __call__(self, frames: Tensor) -> Tensor | Views:
        """Applies the transforms to a clip (uint8 [T, C, H, W] -> uint8 [C, T, H, W])."""
        return channels_first(self.transform(frames))

    def denormalize(self, clip: Tensor) -> Tensor:
        """Returns values in [0, 1] of clips [..., C, T, H, W], of uint8 or normalised."""
        return self.normalization.undo(clip)


class SALTEvalTransform:
    """Implements the fixed view for evaluation.

    Input to this transform:
        Tensor of uint8 frames [T, C, H, W].

    Output of this transform:
        Tensor of float32 [C, T, H, W], one clip.

    Resizes the frame, keeping its shape, to the smallest one that covers the size (bilinear,
    antialiased), and crops the centre.

    Attributes:
        size:
            Size of the clip in pixels, one number or (height, width).
        mean:
            Mean of each channel, for values in [0, 1].
        std:
            Standard deviation of each channel.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        self.size = checked_size(size)
        self.mean, self.std = list(mean), list(std)

    @property
    def normalization(self) -> Normalization:
        """What clips are normalised by."""
        return Normalization(self.mean, self.std)

    def __call__(self, frames: Tensor) -> Tensor:
        """Applies the transforms to a clip (uint8 [T, C, H, W] -> float32 [C, T, H, W])."""
        return self.crops(frames, 1)[0]

    def crops(self, frames: Tensor, count: int) -> Tensor:
        """Returns several crops of a clip, spread evenly along its longer side.

        Args:
            frames: uint8 [T, C, H, W].
            count: Number of crops: 1 is the centre, 3 are both ends and the centre.

        Returns:
            float32 [count, C, T, height, width]; all alike where the frame has the crop's shape.
        """
        cropped = self.cropped(frames, count)
        return self.normalization(torch.stack([channels_first(crop) for crop in cropped]))

    def cropped(self, frames: Tensor, count: int = 1) -> list[Tensor]:
        """Returns the crops of `crops` before they are normalised, each uint8 [T, C, h, w]."""
        height, width = frames.shape[-2:]
        factor = max(self.size[0] / height, self.size[1] / width)
        covering = [round(height * factor), round(width * factor)]
        resized = _resized(frames, covering)
        slack = [covering[0] - self.size[0], covering[1] - self.size[1]]
        shares = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
        places = [[round(share * side) for side in slack] for share in shares]
        height, width = self.size
        return [resized[..., top : top + height, left : left + width] for top, left in places]

    def denormalize(self, clip: Tensor) -> Tensor:
        """Undoes the normalization ([..., C, T, H, W], any float -> values in [0, 1])."""
        return self.normalization.undo(clip)


def crop_and_flip(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    hflip: float,
    interpolation: str = "bilinear",
) -> v2.Compose:
    """Returns a random resized crop and a random flip, antialiased.

    Raises:
        ConfigError: A number is out of range.
    """
    from torchvision.transforms import InterpolationMode, v2

    for name, pair in (("scale", scale), ("ratio", ratio)):
        if not isinstance(pair, Sequence) or len(pair) != 2 or not 0 < pair[0] <= pair[1]:
            raise ConfigError(
                f"method.transform.{name}={pair}: expected two numbers, 0 < lowest <= highest."
            )
    if scale[1] > 1:
        raise ConfigError(f"method.transform.scale={list(scale)}: expected at most 1.")
    if not 0 <= hflip <= 1:
        raise ConfigError(f"method.transform.hflip={hflip}: expected a probability in [0, 1].")
    crop = v2.RandomResizedCrop(
        list(size),
        scale=tuple(scale),
        ratio=tuple(ratio),
        interpolation=InterpolationMode(interpolation),
        antialias=True,
    )
    return v2.Compose([crop, v2.RandomHorizontalFlip(hflip)])


def checked_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns height and width of a size.

    Raises:
        ConfigError: One is not positive.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ConfigError(f"method.clip.size={size}: expected a positive number of pixels.")
    return height, width


def _resized(frames: Tensor, size: list[int]) -> Tensor:
    """Resizes uint8 frames [T, C, H, W] as torchvision's v2 does."""
    if [*frames.shape[-2:]] == size:
        return frames
    if frames.device.type == "cpu":
        return interpolate(frames, size, mode="bilinear", antialias=True)
    resized = interpolate(frames.float(), size, mode="bilinear", antialias=True)
    return resized.round().to(torch.uint8)


def channels_first(frames: Tensor) -> Tensor:
    """Maps [T, C, H, W] to [C, T, H, W]."""
    return frames.transpose(0, 1).contiguous()
