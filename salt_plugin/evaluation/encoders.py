"""Encoders by specification: runs, files, V-JEPA 2's weights, timm's image models, random ones."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.checkpoints import STUDENT_FIRST, find_encoder, load_encoder, read_input
from salt_plugin.checkpoints.load import is_huggingface, is_vjepa2
from salt_plugin.config.probe import CLIP
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.evaluation.image_frames import TUBELET, ImageFrames
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.models.teacher import fingerprint
from salt_plugin.shapes import ENCODER_SIZES, Grid

TIMM = "timm:"
RANDOM = "random:"
_OURS = tuple(f"salt_{size}" for size in ENCODER_SIZES)  # under timm's names


class FrozenEncoder(nn.Module):
    """What is probed: maps clips [B, C, T, H, W] to tokens [B, N, D], and never changes.

    Of an encoder with a `[cls]` token that token is the first, and is what `pool` returns.

    Args:
        name: For tables.
        model: The encoder itself.
        embed_dim: Token width D.
        tubelet_size: Frames that one token spans.
        patch_size: Pixels that one token spans, where clips have to be a multiple of it.
        in_chans: Colour channels that it takes.
        mean: Of each channel, for values in [0, 1].
        std: Likewise.
        random: Whether the weights are random.

    Attributes:
        fingerprint: SHA-256 of the weights and of what else its tokens depend on.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        embed_dim: int,
        tubelet_size: int,
        patch_size: int = 1,
        in_chans: int = 3,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        random: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.embed_dim = embed_dim
        self.tubelet_size = tubelet_size
        self.patch_size = patch_size
        self.in_chans = in_chans
        self.mean, self.std = list(mean), list(std)
        self.random = random
        about = [self._kind(), tubelet_size, patch_size, fingerprint(model.state_dict())]
        self.fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()

    @classmethod
    def of(
        cls,
        name: str,
        encoder: VideoEncoder,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        random: bool = False,
    ) -> FrozenEncoder:
        """Returns one of our encoders, frozen."""
        shape = encoder.shape
        sizes = (shape.tubelet_size, shape.patch_size, shape.in_chans)
        return cls(name, encoder, shape.embed_dim, *sizes, mean, std, random)

    def check_clip(self, frames: int, size: int) -> None:
        """Checks that clips fit.

        Args:
            frames: Of a clip.
            size: Height and width in pixels.

        Raises:
            ConfigError: The encoder cannot cut such clips into its tokens, or takes other colours.
        """
        for key, length, unit, what in (
            ("frames", frames, self.tubelet_size, "frames"),
            ("size", size, self.patch_size, "pixels"),
        ):
            if length < unit or length % unit:
                nearest = max(unit, round(length / unit) * unit)
                raise ConfigError(
                    f"probe.{key}={length}: {self.name} cuts clips into tubelets of {unit} {what}; "
                    f"use {nearest}"
                )
        if self.in_chans != 3:
            raise ConfigError(
                f"{self.name} takes {self.in_chans} colour channels: expected 3, as videos have"
            )

    @torch.no_grad()
    def tokens(self, frames: int, size: int) -> int:
        """Returns N, the tokens of a clip."""
        device = next(self.parameters()).device
        return self(torch.zeros(1, 3, frames, size, size, device=device)).shape[1]

    def grid(self, frames: int, tokens: int) -> Grid:
        """Returns the grid of the tokens of a square clip.

        Args:
            frames: Of the clip.
            tokens: N, without `[cls]`. Those of an image model form the grid of its frames;
                where that is not square, each pooled frame is one row.
        """
        times = frames // self.tubelet_size
        side = math.isqrt(tokens // times)
        return (times, side, side) if times * side**2 == tokens else (times, 1, tokens // times)

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens are of no place: 1 where the first is `[cls]`."""
        return getattr(self.model, "num_prefix_tokens", 0)

    def pool(self, tokens: Tensor) -> Tensor:
        """Returns the feature of clips: `[cls]`, or the mean over tokens where there is none.

        Args:
            tokens: [..., N, D], as `forward` gives them.

        Returns:
            [..., D].
        """
        return tokens[..., 0, :] if self.num_prefix_tokens else tokens.mean(-2)

    @torch.no_grad()
    def forward(self, clip_bcthw: Tensor) -> Tensor:
        """Encodes clips [B, C, T, H, W] into tokens [B, N, D]."""
        return self.model(clip_bcthw)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode."""
        return super().train(False)

    def _kind(self) -> str:
        if isinstance(self.model, VideoEncoder):
            return json.dumps(self.model.shape.as_dict(), sort_keys=True)
        return f"{type(self.model).__name__} {self.name}"


def open_encoder(
    spec: str, *, size: int = 224, seed: int = 0, order: Sequence[str] = STUDENT_FIRST
) -> FrozenEncoder:
    """Returns the encoder that a specification names.

    Args:
        spec: A run directory, an encoder file, V-JEPA 2's weights in either public layout;
            `timm:NAME`, an image model with random weights, or `timm:NAME:FILE`; `random:SIZE`, an
            untrained encoder such as `random:vit_tiny` or `timm:salt_vit_tiny`, or `random:PATH`,
            one of the shape of an encoder.
        size: Height and width of the clips in pixels; image models are built for it.
        seed: Of random weights.
        order: Which stage of a run directory to prefer.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
        ConfigError: There is no such model.
    """
    if spec.startswith(TIMM):
        name, _, file = spec.removeprefix(TIMM).partition(":")
        torch.manual_seed(seed)
        if name in _OURS:
            if file:
                raise CheckpointError(f"{spec}: name the file of our encoders alone: {file}")
            return FrozenEncoder.of(spec, timm.create_model(name, num_classes=0), random=True)
        images = ImageFrames(name, size, Path(file).expanduser() if file else None)
        sizes = (images.embed_dim, TUBELET, images.patch_size)
        mean, std = images.mean, images.std
        return FrozenEncoder(spec, images, *sizes, mean=mean, std=std, random=not file)
    if spec.startswith(RANDOM):
        shape, clip = _shape_of(spec.removeprefix(RANDOM), order)
        torch.manual_seed(seed)
        encoder = VideoEncoder(shape)
    else:
        encoder = load_encoder(spec, order=order)
        clip = read_input(find_encoder(spec, order))
    return FrozenEncoder.of(
        spec,
        encoder,
        clip.get("mean", IMAGENET_MEAN),
        clip.get("std", IMAGENET_STD),
        random=spec.startswith(RANDOM),
    )


def card_clip(spec: str, order: Sequence[str] = STUDENT_FIRST) -> dict[str, Any]:
    """Returns what the card of an encoder tells of the clips that it was trained on.

    Args:
        spec: As for `open_encoder`.
        order: Likewise.

    Returns:
        `frames`, `size`, `step` and `fps`, as far as the card holds them; none for encoders
        without a card of ours.

    Raises:
        CheckpointError: The file is missing, or its card is damaged.
    """
    named = spec.removeprefix(RANDOM)
    untrained = named != spec and not Path(named).expanduser().exists()
    if spec.startswith(TIMM) or untrained or (named != spec and named in ENCODER_SIZES):
        return {}
    file = find_encoder(named, order)
    if is_vjepa2(file) or is_huggingface(file):
        return {}
    clip = read_input(file)
    return {key: clip[key] for key in CLIP if key in clip}


def _shape_of(named: str, order: Sequence[str]) -> tuple[EncoderShape, dict]:
    if named in ENCODER_SIZES:
        return EncoderShape.named(named), {}
    if not Path(named).expanduser().exists():
        raise ConfigError(
            f"random:{named}: neither a size nor a path; the sizes are {', '.join(ENCODER_SIZES)}"
        )
    return load_encoder(named, order=order).shape, read_input(find_encoder(named, order))
