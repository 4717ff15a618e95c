"""Tokens of several mask sets laid end to end, so that one pass serves them all.

Only attention needs to know where one clip ends: norms, projections and MLPs work on tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Segments = tuple[tuple[int, int], ...]
"""(clips, tokens of each clip) of every mask set; T is the sum of their products."""


def segments_of(tensors: Sequence[Tensor]) -> Segments:
    """Returns the segments of tensors [B, K, ...]."""
    return tuple((tensor.shape[0], tensor.shape[1]) for tensor in tensors)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Lays tensors [B, K, D], of different K, end to end: [T, D]."""
    flat = [tensor.flatten(0, 1) for tensor in tensors]
    return torch.cat(flat) if len(flat) > 1 else flat[0]


def unpack(packed_td: Tensor, segments: Segments) -> list[Tensor]:
    """Inverse of `pack`: views [B, K, ...] of [T, ...]."""
    parts = packed_td.split([clips * tokens for clips, tokens in segments])
    return [part.unflatten(0, segment) for part, segment in zip(parts, segments, strict=True)]
