"""What becomes of the tokens of a clip: which layers are taken, and how these are pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from salt_plugin.errors import ConfigError
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.probe_file import load_probe
from salt_plugin.models import VideoEncoder, fingerprint
from salt_plugin.models.intermediates import intermediates
from salt_plugin.transforms.preprocessing import Preprocessing

ATTENTIVE = "attentive:"


class Pooling:
    """Maps clips to features.

    Args:
        encoder: On the device where it computes.
        how: `mean` (of an encoder with `[cls]`, this), `none`, or `attentive:FILE`.
        layers: As of `tokens_of_layers`; None: the last one, without an axis of layers.
        clip: What clips are.

    Attributes:
        name: What the features depend on, of a probe its fingerprint.
        shape: Of the features of a clip.
        dtype: In which they are kept: tokens in float16, as the cache of the evaluation.

    Raises:
        ConfigError: The encoder has no such layers, or the pooling is none or does not fit.
        CheckpointError: There is no probe in the file.
    """

    def __init__(
        self, encoder: FrozenEncoder, how: str, layers: Sequence[int] | None, clip: Preprocessing
    ) -> None:
        self._tokens: Callable[[Tensor], Tensor] = encoder
        self.name, self.dtype, self.shape = how, "<f4", [encoder.embed_dim]
        if layers is not None:
            model = _with_layers(encoder, layers)
            self._tokens = lambda clips: tokens_of_layers(model, clips, layers)
        if how.startswith(ATTENTIVE):
            if layers is not None:
                raise ConfigError(f"--pool {how} reads the last layer; leave out --layers")
            probe = load_probe(Path(how.removeprefix(ATTENTIVE)).expanduser()).to(encoder.device)
            if probe.dim != encoder.embed_dim:
                raise ConfigError(
                    f"--pool {how}: the probe reads tokens of width {probe.dim}, and those of "
                    f"{encoder.name} have {encoder.embed_dim}; give a probe of this encoder"
                )
            self.name = f"attentive {fingerprint(probe.state_dict())}"
            self._pool: Callable[[Tensor], Tensor] = probe.pooler
        elif how == "mean":
            self._pool = lambda tokens: encoder.pool(tokens.float())
        elif how == "none":
            self._pool = lambda tokens: tokens
            self.dtype = "<f2"
            self.shape = [encoder.tokens(clip.frames, clip.size), *self.shape]
        else:
            raise ConfigError(f"--pool {how}: expected mean, none, or {ATTENTIVE}FILE")
        if layers is not None:
            self.shape = [len(layers), *self.shape]

    def __call__(self, clip_bcthw: Tensor) -> Tensor:
        """Returns the features [B, ...] of normalised clips."""
        return self._pool(self._tokens(clip_bcthw))


def _with_layers(encoder: FrozenEncoder, layers: Sequence[int]) -> VideoEncoder:
    model = encoder.model
    if not isinstance(model, VideoEncoder):
        raise ConfigError(f"--layers: {encoder.name} is an image model, of which the last is taken")
    depth = model.shape.depth
    if not layers or any(not -depth <= layer < depth for layer in layers):
        raise ConfigError(
            f"--layers {','.join(map(str, layers))}: {encoder.name} has layers 0 to {depth - 1}, "
            f"or -{depth} to -1"
        )
    return model


def tokens_of_layers(encoder: VideoEncoder, clip_bcthw: Tensor, layers: Sequence[int]) -> Tensor:
    """Returns the tokens after some layers, each after the last LayerNorm, as V-JEPA 2 does.

    Args:
        encoder: The encoder.
        clip_bcthw: [B, C, T, H, W].
        layers: Their numbers, from 0 or, negative, from the end.

    Returns:
        [B, L, N, D], of the last layer what the encoder itself gives.
    """
    return torch.stack(intermediates(encoder, clip_bcthw, layers, norm=True)[1], 1)
