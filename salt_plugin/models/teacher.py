"""A teacher that cannot be trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.shapes import Grid


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of named tensors: equal exactly when all bits are equal."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FrozenTeacher(nn.Module):
    """Holds an encoder outside the module tree of whoever trains.

    The encoder is no registered child: ``parameters()`` is empty, so that no optimiser, weight
    decay or gradient averaging can reach it; ``train()`` does not leave evaluation mode; and
    checkpoints of the student do not carry the teacher. Only moves between devices and changes
    of dtype are passed on.
    """

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self._hidden = (encoder.eval().requires_grad_(False),)

    @property
    def encoder(self) -> VideoEncoder:
        """The frozen encoder."""
        return self._hidden[0]

    @property
    def embed_dim(self) -> int:
        """Width of the latents."""
        return self.encoder.embed_dim

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the weights."""
        return fingerprint(self.encoder.state_dict())

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenTeacher:
        self.encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Returns the latents [B, N, D] of whole clips, without a graph."""
        return self.encoder.forward_patches(patches_bnp, grid)
