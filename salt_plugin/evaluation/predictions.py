"""What trained attentive probes say about videos, averaged over their views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from salt_plugin.evaluation.attentive import AttentiveProbe
from salt_plugin.evaluation.bank import ProbeBank


class Features(Protocol):
    """Tokens of n videos in V views; a tensor [n, V, N, D] is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, V, N, D)."""

    def __getitem__(self, indices: Tensor, /) -> Tensor:
        """Returns [b, V, N, D] of int64 indices [b]."""


@torch.no_grad()
def predict(probe: AttentiveProbe, features: Features, batch_size: int = 64) -> Tensor:
    """Returns class probabilities, float32 [n, C], averaged over the views, on the CPU.

    Args:
        probe: As `train_grid` returns it; it computes in float32.
        features: Shape (n, V, N, D).
        batch_size: Clips at once; a video counts for as many as it has views.
    """
    device = next(probe.parameters()).device
    parts = []
    for indices in _in_order(features, batch_size):
        tokens = features[indices].to(device, torch.float32)
        logits_bvc = probe(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        parts.append(logits_bvc.softmax(-1).mean(1).cpu())
    return torch.cat(parts)


def accuracies(
    bank: ProbeBank,
    features: Features,
    labels_n: Tensor,
    batch_size: int,
    device: str | torch.device,
) -> list[float | None]:
    """Returns the accuracy of each probe of a bank; None where an output is not finite.

    Args:
        bank: P probes.
        features: Shape (n, V, N, D); the softmax is averaged over the views.
        labels_n: Classes, int64 [n].
        batch_size: Clips at once, as in `predict`.
        device: Of the probes.
    """
    parts = []
    for indices in _in_order(features, batch_size):
        tokens = features[indices].to(device)
        logits_pbvc = bank.logits(tokens.flatten(0, 1)).unflatten(1, tokens.shape[:2])
        parts.append(logits_pbvc.softmax(-1).mean(2).cpu())
    scores_pnc = torch.cat(parts, 1)
    right_p = (scores_pnc.argmax(-1) == labels_n.cpu()).double().mean(1).tolist()
    finite_p = scores_pnc.isfinite().flatten(1).all(1).tolist()
    return [right if finite else None for right, finite in zip(right_p, finite_p, strict=True)]


def _in_order(features: Features, batch_size: int) -> Iterator[Tensor]:
    videos, views = features.shape[:2]
    return iter(torch.arange(videos).split(max(1, batch_size // views)))
