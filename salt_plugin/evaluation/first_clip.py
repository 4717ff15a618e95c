"""The clip that pictures are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.extract import view_dataset
from salt_plugin.evaluation.lists import read_lists
from salt_plugin.evaluation.protocol import stored_features
from salt_plugin.evaluation.views import Views
from salt_plugin.shapes import Grid


class FirstClip(NamedTuple):
    """A clip and its tokens.

    Attributes:
        frames_thwc: What is seen, float32 [T, H, W, 3] in [0, 1].
        tokens_nd: What the encoder makes of it, float32 [N, D].
        grid: Of the tokens.
    """

    frames_thwc: Tensor
    tokens_nd: Tensor
    grid: Grid


def first_test_clip(
    encoder: FrozenEncoder, config: ProbeConfig, device: str | None = None
) -> FirstClip:
    """Returns the first view of the first test video.

    Args:
        encoder: What is probed.
        config: Of an evaluation with the protocol `attentive`, whose tokens are read.
        device: Where to compute them if they are not stored.

    Raises:
        SaltError: As `probe`.
    """
    stored = stored_features(encoder, config, "test", device).tokens
    assert stored is not None, "means alone are stored without the protocol `attentive`"
    tokens_nd = stored[torch.tensor([0])][0, 0][encoder.num_prefix_tokens :]
    paths = read_lists(config).test.paths
    views = Views(config.segments, config.crops)
    _, clip = view_dataset(paths, views, config, encoder.mean, encoder.std).first()
    grid = encoder.grid(config.frames, len(tokens_nd))
    return FirstClip(clip.permute(1, 2, 3, 0), tokens_nd, grid)
