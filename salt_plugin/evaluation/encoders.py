"""Encoders by specification: runs, files, V-JEPA 2's weights, timm's image models, random ones."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.checkpoints import find_encoder, load_encoder, read_input, read_start
from salt_plugin.checkpoints.load import is_huggingface
from salt_plugin.config.evaluation import CLIP
from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.image_frames import ImageFrames
from salt_plugin.models import EncoderShape, VideoEncoder, fingerprint
from salt_plugin.models.intermediates import intermediates
from salt_plugin.shapes import ENCODER_SIZES, Grid, as_dict
from salt_plugin.transforms.preprocessing import Preprocessing

TIMM = "timm:"
RANDOM = "random:"
OURS = "timm:salt_"  # our own encoders under timm's names


class FrozenEncoder(nn.Module):
    """Maps clips [B, C, T, H, W] to tokens [B, N, D], and never changes.

    Of an encoder with a `[cls]` token that token is the first, and is what `pool` returns.

    Args:
        name: For tables.
        model: The encoder itself; it is frozen here.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.
        random: Whether the weights are random.
        clip: `frames`, `size`, `step` and `fps` of the clips that it was trained on, as far as
            they are known.

    Attributes:
        embed_dim: Token width D.
        tubelet_size: Frames that one token spans.
        patch_size: Pixels that one token spans, where clips have to be a multiple of it; else 1.
        preprocessing: The clips that it takes, where nothing else is asked for.
        fingerprint: SHA-256 of the weights and of what else its tokens depend on.
    """

    def __init__(
        self,
        name: str,
        model: VideoEncoder | ImageFrames,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        random: bool = False,
        clip: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.model = model.eval().requires_grad_(False)
        sizes = model.shape if isinstance(model, VideoEncoder) else model
        self.embed_dim: int = sizes.embed_dim
        self.tubelet_size: int = sizes.tubelet_size
        self.patch_size: int = sizes.patch_size
        self.mean, self.std = list(mean), list(std)
        self.random = random
        self.clip = dict(clip or {})
        self.preprocessing = Preprocessing(mean=self.mean, std=self.std)
        if isinstance(model, VideoEncoder):
            self.preprocessing = model.preprocessing
        kind = f"ImageFrames {name}"
        if isinstance(model, VideoEncoder):
            kind = json.dumps(as_dict(model.shape), sort_keys=True)
        about = [kind, self.tubelet_size, self.patch_size, fingerprint(model.state_dict())]
        self.fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def check_clip(self, frames: int, size: int, where: str = "probe.") -> None:
        """Checks that clips fit.

        Args:
            frames: Of a clip.
            size: Height and width in pixels.
            where: What stands before the names of these two, for the message.

        Raises:
            ConfigError: The encoder cannot cut such clips into its tokens.
        """
        for key, length, unit, what in (
            ("frames", frames, self.tubelet_size, "frames"),
            ("size", size, self.patch_size, "pixels"),
        ):
            if length % unit:
                nearest = max(unit, round(length / unit) * unit)
                raise ConfigError(
                    f"{where}{key}={length}: {self.name} cuts clips into tubelets of {unit} "
                    f"{what}; use {nearest}"
                )

    def tokens(self, frames: int, size: int) -> int:
        """Returns N, the number of tokens of a clip."""
        return self(torch.zeros(1, 3, frames, size, size, device=self.device)).shape[1]

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

    @torch.no_grad()
    def last_layers(self, clip_bcthw: Tensor, count: int) -> Tensor:
        """Encodes clips into the tokens of several blocks, each after the last LayerNorm.

        As V-JEPA 2's evaluation takes four (17, 19, 21 and 23 of ViT-L's 24, counted from 0);
        inferred: of other depths every (depth / 12)th from the last one back.

        Args:
            clip_bcthw: Clips [B, C, T, H, W].
            count: Of the blocks.

        Returns:
            [B, count * N, D], the last block last.

        Raises:
            ConfigError: It is an image model, or has not so many blocks.
        """
        if count == 1:
            return self(clip_bcthw)
        model = self.model
        depth = len(model.blocks) if isinstance(model, VideoEncoder) else 0
        step = max(1, depth // 12)
        if not isinstance(model, VideoEncoder) or count > -(-depth // step):
            raise ConfigError(
                f"probe.layers={count}: {self.name} has not so many blocks to read, each "
                f"{step} apart; use 1"
            )
        chosen = range(depth)[::-step][:count][::-1]
        _, found = intermediates(model, clip_bcthw, chosen, norm=True)
        return torch.cat(found, 1)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode."""
        return super().train(False)


def open_encoder(spec: str, *, size: int = 224, seed: int = 0) -> FrozenEncoder:
    """Returns the encoder that a specification names.

    Args:
        spec: A run directory, an encoder file, V-JEPA 2's weights in either public layout;
            `timm:NAME`, an image model with random weights, or `timm:NAME:FILE`; `random:SIZE`, an
            untrained encoder such as `random:vit_tiny` or `timm:salt_vit_tiny`, or `random:PATH`,
            a trained encoder as it was before training: by the deviation and the seed of its run;
            where its card does not say them, by 0.02, V-JEPA's, and `seed`.
        size: Height and width of the clips in pixels; image models are built for it.
        seed: Of random weights.

    Raises:
        CheckpointError: The file is missing, foreign, incomplete or damaged.
        ConfigError: There is no such model.
    """
    prefix = next((kind for kind in (OURS, TIMM, RANDOM) if spec.startswith(kind)), "")
    named = spec.removeprefix(prefix)
    if prefix == TIMM:
        name, _, file = named.partition(":")
        torch.manual_seed(seed)
        images = ImageFrames(name, size, Path(file).expanduser() if file else None)
        return FrozenEncoder(spec, images, images.mean, images.std, random=not file)
    if prefix and (named in ENCODER_SIZES or not Path(named).expanduser().exists()):
        if named not in ENCODER_SIZES:
            sizes = ", ".join(ENCODER_SIZES)
            raise ConfigError(f"{spec}: neither a size nor a path; the sizes are {sizes}")
        torch.manual_seed(seed)
        return FrozenEncoder(spec, VideoEncoder(EncoderShape.named(named)), random=True)
    encoder, place = load_encoder(named), find_encoder(named)
    if prefix:
        trained, start = encoder, read_start(place)
        torch.manual_seed(seed if start is None else start.seed)
        std = {} if start is None else {"init_std": start.std}
        encoder = VideoEncoder(trained.shape, **std)
        encoder.preprocessing = trained.preprocessing
    card = read_input(place)
    mean, std = card.get("mean", IMAGENET_MEAN), card.get("std", IMAGENET_STD)
    clip = {} if is_huggingface(place) else {key: card[key] for key in CLIP if key in card}
    return FrozenEncoder(spec, encoder, mean, std, bool(prefix), clip)


def chosen_device(name: str | None = None) -> str:
    """Returns a device that is there.

    Args:
        name: Such as `cuda:1`; None: a GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    visible = torch.cuda.device_count()
    if name is None:
        return "cuda" if visible else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: no device; expected such as cpu or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= visible:
        raise ConfigError(
            f"--device {name}: torch sees {visible} GPUs on this machine; leave it out, or name "
            "another"
        )
    return name
