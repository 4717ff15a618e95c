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

    Args:
        encoder: The encoder; it is frozen here, and belongs to the teacher from now on.
        matrix_dtype: Type of autocast, if the teacher will run under it. Its matrices are then
            kept in that type: the latents are the same to the last bit, without the casts of
            every step. Norms stay as they are.
    """

    def __init__(self, encoder: VideoEncoder, matrix_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._hidden = (encoder.eval().requires_grad_(False),)
        self._given = self._kept = fingerprint(encoder.state_dict())
        if matrix_dtype is not None:
            for module in encoder.modules():
                if isinstance(module, nn.Linear | nn.Conv3d):
                    module.to(matrix_dtype)
            self._kept = fingerprint(encoder.state_dict())

    @property
    def encoder(self) -> VideoEncoder:
        """The frozen encoder."""
        return self._hidden[0]

    @property
    def embed_dim(self) -> int:
        """Width of the latents."""
        return self.encoder.embed_dim

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the weights as they were given."""
        return self._given

    def is_intact(self) -> bool:
        """Tells whether not one bit of the weights has changed since."""
        return fingerprint(self.encoder.state_dict()) == self._kept

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenTeacher:
        self.encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Returns the latents [B, N, D] of whole clips, without a graph."""
        return self.encoder.forward_patches(patches_bnp, grid)
