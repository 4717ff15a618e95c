"""Several views of a clip: itself, and smaller ones of parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD, Views
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import local_side
from salt_plugin.transforms.salt_transform import (
    SALTTransform,
    channels_first,
    checked_size,
    crop_and_flip,
)

_BICUBIC = "bicubic"


class MultiViewTransform(SALTTransform):
    """Implements the view augmentation for LeVJEPA: a global view and several local ones.

    Input to this transform:
        Tensor of uint8 frames [T, C, H, W].

    Output of this transform:
        `Views` of uint8: the clip [C, T, H, W], and its local views [V, C, T, h, w].

    Applies the following augmentations by default (LeVJEPA's repository), with one draw of each
    for all frames of a view. All views are of the same frames; crops are bicubic, antialiased.
        - Random resized crop (of all views)
        - Random horizontal flip, colour jitter, grayscale (of local views)

    Attributes:
        size:
            Size of the global view in pixels, one number or (height, width).
        scale:
            Smallest and largest share of the frame's area that the global view covers.
        ratio:
            Smallest and largest aspect ratio (width / height) of the crop of any view.
        hflip:
            Probability of the flip of the global view.
        local_views:
            Number of local views.
        local_size:
            Height and width of a local view in pixels, a multiple of the patch; null: three
            sevenths of the clip's, in whole patches.
        patch_size:
            Side of a patch in pixels.
        local_scale:
            Smallest and largest share of the frame's area that a local view covers.
        local_hflip:
            Probability of the flip of a local view.
        jitter:
            Largest change of brightness, contrast, saturation and hue of a local view.
        jitter_probability:
            Probability of that change.
        grayscale:
            Probability that a local view is grey.
        mean:
            Mean of each channel, for values in [0, 1].
        std:
            Standard deviation of each channel.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.8, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333),
        hflip: float = 0.0,
        local_views: int = 10,
        local_size: int | None = None,
        patch_size: int = 16,
        local_scale: tuple[float, float] = (0.02, 0.4),
        local_hflip: float = 0.5,
        jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1),
        jitter_probability: float = 0.8,
        grayscale: float = 0.2,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        from torchvision.transforms import v2  # seconds

        super().__init__(size, scale, ratio, hflip, mean, std)
        if local_views < 1:
            raise ConfigError(f"method.transform.local_views={local_views}: expected at least 1")
        if len(jitter) != 4:
            raise ConfigError(
                f"method.transform.jitter={list(jitter)}: expected four numbers, for brightness, "
                "contrast, saturation and hue"
            )
        self.local_views = local_views
        sides = [local_size or local_side(side, patch_size) for side in self.size]
        self.transform = crop_and_flip(self.size, scale, ratio, hflip, _BICUBIC)
        local = crop_and_flip(checked_size(sides), local_scale, ratio, local_hflip, _BICUBIC)
        colours = v2.RandomApply([v2.ColorJitter(*jitter)], jitter_probability)
        self.local_transform = v2.Compose(
            [
                local,
                colours,
                v2.RandomGrayscale(grayscale),
            ]
        )

    def __call__(self, frames: Tensor) -> Views:
        """Applies the transforms to a clip (uint8 [T, C, H, W] -> `Views` of uint8)."""
        local = [channels_first(self.local_transform(frames)) for _ in range(self.local_views)]
        return Views(channels_first(self.transform(frames)), torch.stack(local))
