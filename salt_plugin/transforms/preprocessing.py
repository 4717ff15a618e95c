"""What an encoder does to frames before it sees them, as its card says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.errors import ShapeError
from salt_plugin.transforms.salt_transform import SALTEvalTransform


@dataclass(frozen=True)
class Preprocessing:
    """The clips that an encoder takes; the defaults are those of the frozen evaluation.

    Attributes:
        frames: Frames of a clip, T.
        size: Height and width in pixels.
        step: Distance between the frames of a clip, in frames of the video.
        fps: Frames a second of a clip, which goes before `step`; None: it is not known.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.
    """

    frames: int = 16
    size: int = 224
    step: int = 4
    fps: float | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    @property
    def transform(self) -> SALTEvalTransform:
        """What makes a clip of its frames: resized to cover the size, cut at the centre."""
        return SALTEvalTransform(self.size, self.mean, self.std)

    def __call__(self, frames: Any) -> Tensor:
        """Makes a clip of the frames of a video, or of an image.

        As many frames as a clip has are taken as they are. Of more or fewer, those in the middle
        are taken, `step` apart (1 where the encoder goes by `fps`, since arrays have no times);
        the last one repeats where they do not suffice.

        Args:
            frames: numpy or torch, uint8, RGB: [T, H, W, 3] or [T, 3, H, W]; of an image, which
                is repeated, without T.

        Returns:
            float32 [1, 3, frames, size, size], normalised.

        Raises:
            ShapeError: They are something else.
        """
        shape, dtype = tuple(getattr(frames, "shape", ())), str(getattr(frames, "dtype", ""))
        video = shape if len(shape) == 4 else (1, *shape)
        if len(video) != 4 or 0 in video or not dtype.endswith("uint8") or 3 not in video[1::2]:
            found = f"{dtype} {list(shape)}" if shape else type(frames).__name__
            raise ShapeError(
                "expected frames uint8 [T, H, W, 3] or [T, 3, H, W], or an image without T, of "
                f"numpy or torch; found {found}; salt_plugin.embed takes files"
            )
        count, step = video[0], 1 if self.fps else self.step
        picked = np.arange(count)
        if count != self.frames:
            offsets = np.arange(self.frames) * step
            start = max(count - 1 - int(offsets[-1]), 0) // 2
            picked = np.minimum(start + offsets, count - 1)
        chosen = torch.as_tensor(frames.reshape(video)[picked])
        if video[-1] == 3:
            chosen = chosen.permute(0, 3, 1, 2)
        return self.transform(chosen)[None]
