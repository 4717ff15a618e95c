"""What is kept of a clip's tokens for probes that read one vector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from salt_plugin.config.evaluation import Keep
from salt_plugin.evaluation.encoders import FrozenEncoder

PLACES = 2  # rows, and columns


def kept(encoder: FrozenEncoder, tokens: Tensor, frames: int, keep: Keep) -> Tensor:
    """Returns the mean of the tokens over what is not kept.

    Args:
        encoder: That gave the tokens.
        tokens: floating [..., N, D].
        frames: Of a clip.
        keep: `none`: `[cls]` or the mean over all, as `FrozenEncoder.pool` gives it; `time`: the
            mean at each time; `time+space`: the mean at each time in each of 2 x 2 places, which
            overlap by a token where the grid has an odd side. Before the last two stands `[cls]`,
            where the encoder has one.

    Returns:
        [..., K * D], of the K means times before rows before columns.
    """
    if keep == "none":
        return encoder.pool(tokens)
    prefix = tokens[..., : encoder.num_prefix_tokens, :].flatten(-2)
    tokens = tokens[..., encoder.num_prefix_tokens :, :]
    times, height, width = encoder.grid(frames, tokens.shape[-2])
    if keep == "time":
        means = tokens.unflatten(-2, (times, -1)).mean(-2).flatten(-2)
        return torch.cat([prefix, means], -1)
    maps_bdhw = tokens.reshape(-1, height, width, tokens.shape[-1]).permute(0, 3, 1, 2)
    places = adaptive_avg_pool2d(maps_bdhw, (min(PLACES, height), min(PLACES, width)))
    means = places.permute(0, 2, 3, 1).reshape(*tokens.shape[:-2], -1)
    return torch.cat([prefix, means], -1)


def named(encoder: FrozenEncoder, keep: Keep) -> str:
    """Returns in words what is kept."""
    if keep == "none":
        return "[cls]" if encoder.num_prefix_tokens else "mean"
    means = "time" if keep == "time" else f"time, {PLACES} x {PLACES} places"
    return f"[cls], {means}" if encoder.num_prefix_tokens else means
