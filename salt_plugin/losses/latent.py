"""Loss between predicted and teacher latents at the masked places (SALT, V-JEPA)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from salt_plugin.errors import ConfigError


def _cosine(prediction: Tensor, target: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(prediction, target, dim=-1).mean()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "mse": F.mse_loss,
    "cosine": _cosine,
}


class LatentLoss(nn.Module):
    """Distance between predictions and teacher latents.

    Args:
        distance: ``l1`` (printed), ``smooth_l1``, ``mse`` or ``cosine``.
        normalize_targets: Affine-free LayerNorm of each target token (inferred: V-JEPA's way).

    Raises:
        ConfigError: The distance is unknown.
    """

    def __init__(self, distance: str = "l1", normalize_targets: bool = True) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise ConfigError(
                f"method.loss.distance={distance!r} is unknown; one of {', '.join(DISTANCES)}"
            )
        self.distance = distance
        self.normalize_targets = normalize_targets

    def forward(self, prediction_bmd: Tensor, target_bmd: Tensor) -> Tensor:
        """Returns the mean loss (float32 scalar) over [B, M, D] predictions and latents."""
        target = target_bmd.detach().float()
        if self.normalize_targets:
            target = F.layer_norm(target, target.shape[-1:])
        return DISTANCES[self.distance](prediction_bmd.float(), target)
