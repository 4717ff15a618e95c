"""Features of a list of videos as they are read back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class TokenFeatures:
    """Tokens on disk, read as they are asked for: `.shape` is (n, V, N, D)."""

    def __init__(self, stored: np.ndarray) -> None:
        self._stored = stored
        self.shape = stored.shape

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Returns float32 [b, V, N, D] of the videos with these indices, int64 [b]."""
        return torch.from_numpy(self._stored[indices.numpy()].astype(np.float32))


class StoredFeatures(NamedTuple):
    """Features of a list of videos.

    Attributes:
        means: Mean over all tokens, float32 [n, V, D].
        tokens: The tokens; None where only means were asked for.
    """

    means: Tensor
    tokens: TokenFeatures | None
