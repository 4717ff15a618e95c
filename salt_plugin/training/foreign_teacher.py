"""Teachers that come from elsewhere: image models of timm, and what a student's clips are to them.

An encoder of ours or V-JEPA 2's has to cut clips into the student's tubelets; an image model sees
frames at the size at which its tokens lie where the student's do.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salt_plugin.batch import Normalization
from salt_plugin.compute.counter import count_flops
from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.encoders import OURS, TIMM
from salt_plugin.evaluation.image_frames import ImageFrames
from salt_plugin.models import VideoEncoder
from salt_plugin.models.encoder import unpatchify
from salt_plugin.shapes import CountedShape, EncoderShape, Grid
from salt_plugin.training.run_shapes import RunShapes


class FrameTeacher(nn.Module):
    """An image model of timm that sees the frames of a clip one by one, as a teacher.

    Frames are resized so that its tokens lie where the student's do, and the tokens of the frames
    of a tubelet are averaged.

    Args:
        spec: `timm:NAME`, with random weights that are always the same, or `timm:NAME:FILE`.
        shapes: Of the run: the student's tubelet, and the grid of its tokens.

    Attributes:
        embed_dim: Token width D.
        normalization: What the model wants its frames normalised by.
        shape: What planning needs of it.

    Raises:
        ConfigError: There is no such model, or its tokens cannot be the student's.
        CheckpointError: The file does not fit.
    """

    def __init__(self, spec: str, shapes: RunShapes) -> None:
        super().__init__()
        name, _, file = spec.removeprefix(TIMM).partition(":")
        if spec.startswith(OURS):
            raise ConfigError(f"{spec}: an encoder of this package; name its file or run directory")
        self._student, (times, rows, columns) = shapes.encoder, shapes.grid
        self.side = rows * _reduction(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.images = ImageFrames(
                name,
                self.side,
                Path(file).expanduser() if file else None,
                shapes.encoder.tubelet_size,
            )
        self.embed_dim = self.images.embed_dim
        self.normalization = Normalization(self.images.mean, self.images.std)
        one = torch.zeros(1, 3, shapes.encoder.tubelet_size, self.side, self.side)
        self.images.eval()
        with torch.no_grad():
            found = self.images(one).shape[1]
        if found != rows * columns:
            raise ConfigError(
                f"{spec} gives {found} tokens of a frame of {self.side} pixels: expected the "
                f"student's {rows} x {columns}; choose another method.model.patch_size, or another "
                "teacher"
            )
        flops = times * sum(count_flops(self.images, one).values())
        parameters = sum(parameter.numel() for parameter in self.images.parameters())
        self.shape = CountedShape(f"{TIMM}{name}", self.embed_dim, parameters, flops)

    def forward_patches(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Encodes tubelets [B, N, P] into tokens [B, N, D]; as `VideoEncoder.forward_patches`."""
        student = self._student
        clips = unpatchify(patches_bnp, grid, student.tubelet_size, student.patch_size)
        if clips.shape[-1] != self.side:
            B, T = len(clips), clips.shape[2]
            frames = clips.transpose(1, 2).flatten(0, 1)
            frames = F.interpolate(frames, (self.side, self.side), mode="bilinear", antialias=True)
            clips = frames.unflatten(0, (B, T)).transpose(1, 2)
        return self.images(clips)


class TeacherFile(NamedTuple):
    """A teacher as its file gives it.

    Attributes:
        encoder: The encoder.
        shape: What planning needs of it.
        normalization: What it wants clips normalised by.
    """

    encoder: VideoEncoder | FrameTeacher
    shape: EncoderShape | CountedShape
    normalization: Normalization


def _reduction(name: str) -> int:
    """Returns the pixels from one token of an image model to the next; 1 where it does not say."""
    import timm  # seconds

    if not timm.is_model(name):
        return 1  # whoever builds it says so
    with torch.device("meta"):
        info = getattr(timm.create_model(name, num_classes=0), "feature_info", None)
    return int(info[-1]["reduction"]) if isinstance(info, list) and info else 1
