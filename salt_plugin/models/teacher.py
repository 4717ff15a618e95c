"""A teacher that cannot be trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from salt_plugin.batch import Normalization
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
    """Holds an encoder that nothing trains, and that no checkpoint carries.

    Its parameters take no gradient, and whoever trains gives them to no optimiser. ``train()`` does
    not leave evaluation mode. ``state_dict()`` is empty, also as part of that of a method: the
    teacher lies in a file of its own, and checkpoints are written often.

    Args:
        encoder: The encoder; it is frozen here, and belongs to the teacher from now on. It has
            `embed_dim` and `forward_patches`, as a `VideoEncoder` does.
        matrix_dtype: Type of autocast, if the teacher will run under it. Its matrices are then
            kept in that type: the latents are the same to the last bit, without the casts of
            every step. Norms stay as they are.
        given: What its clips are normalised by.
        wanted: What it wants them normalised by; where that differs, they are changed.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        encoder: Any,
        matrix_dtype: torch.dtype | None = None,
        given: Normalization | None = None,
        wanted: Normalization | None = None,
    ) -> None:
        super().__init__()
        scale, shift = _change(given or Normalization(), wanted or given or Normalization())
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.encoder = encoder.requires_grad_(False)
        self._given = self._kept = fingerprint(encoder.state_dict())
        if matrix_dtype is not None and isinstance(encoder, VideoEncoder):
            for module in encoder.modules():
                if isinstance(module, nn.Linear | nn.Conv3d):
                    module.to(matrix_dtype)
            self._kept = fingerprint(encoder.state_dict())
        self.eval()
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_keep)

    @property
    def embed_dim(self) -> int:
        """Width of the latents."""
        width: int = self.encoder.embed_dim
        return width

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the weights as they were given."""
        return self._given

    def is_intact(self) -> bool:
        """Tells whether not one bit of the weights has changed since."""
        return fingerprint(self.encoder.state_dict()) == self._kept

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Returns the latents [B, N, D] of whole clips, without a graph."""
        if self.scale is not None and self.shift is not None:
            channels = patches_bnp.unflatten(-1, (len(self.scale), -1))  # a patch is (c, t, h, w)
            patches_bnp = (channels * self.scale + self.shift).flatten(-2)
        latents_bnd: Tensor = self.encoder.forward_patches(patches_bnp, grid)
        return latents_bnd


def _change(given: Normalization, wanted: Normalization) -> tuple[Tensor | None, Tensor | None]:
    """Returns scale and shift [C, 1] from one normalisation to another; None between equal ones."""
    (mean, std), (other, wide) = (
        torch.tensor([list(one.mean), list(one.std)], dtype=torch.float64)
        for one in (given, wanted)
    )
    if torch.equal(mean, other) and torch.equal(std, wide):
        return None, None
    return (std / wide).float()[:, None], ((mean - other) / wide).float()[:, None]


def _leave_out(teacher: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _keep(teacher: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Adds the teacher's own weights, so that strict loading finds no key missing."""
    for name, value in teacher.encoder.state_dict().items():  # type: ignore[union-attr]
        state[f"{prefix}encoder.{name}"] = value
