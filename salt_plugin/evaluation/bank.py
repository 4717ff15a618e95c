"""Attentive probes that are trained side by side on the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.models.attentive import AttentiveProbe

# Tokens that a probe sees at once: their activations stay in a CPU's cache, and a GPU is filled.
CPU_TOKENS, DEVICE_TOKENS = 784, 50_000


class ProbeBank:
    """P probes, one after the other on tokens that are read once, as V-JEPA 2 trains them.

    One graph for all probes gains a fifth on a CPU (docs/benchmarks/plain.md).

    Args:
        probes: Of one shape; they keep the parameters, and their `grad`.
        dtype: Of products and attention: bfloat16 is autocast's; else that of the probes.
        most_tokens: That a probe sees at once, which bounds memory; None takes what suits the
            device.
    """

    def __init__(
        self,
        probes: Sequence[AttentiveProbe],
        dtype: torch.dtype = torch.float32,
        most_tokens: int | None = None,
    ) -> None:
        self.probes = list(probes)
        self.dtype = dtype
        self.most_tokens = most_tokens

    def backward(self, tokens_bnd: Tensor, labels_b: Tensor, whole: int | None = None) -> Tensor:
        """Adds to the gradients of each probe those of its mean cross-entropy over the batch.

        Args:
            tokens_bnd: Tokens [B, N, D], floating.
            labels_b: Classes, int64 [B].
            whole: Clips of the batch that these are a part of, over which the mean is; None: B.

        Returns:
            The losses [P], detached.
        """
        count = whole or len(labels_b)
        losses_p = torch.zeros(len(self.probes), device=tokens_bnd.device)
        clips = self._clips_at_once(tokens_bnd)
        parts = list(zip(tokens_bnd.split(clips), labels_b.split(clips), strict=True))
        for p, probe in enumerate(self.probes):
            for tokens, labels in parts:
                logits_bc = self._logits(probe, tokens)
                loss = F.cross_entropy(logits_bc, labels, reduction="sum") / count
                loss.backward()
                losses_p[p] += loss.detach()
        return losses_p

    @torch.no_grad()
    def logits(self, tokens_bnd: Tensor) -> Tensor:
        """Returns logits [P, B, C], float32 or wider, of tokens [B, N, D], without gradients."""
        parts = tokens_bnd.split(self._clips_at_once(tokens_bnd))
        return torch.stack(
            [torch.cat([self._logits(probe, tokens) for tokens in parts]) for probe in self.probes]
        )

    def _clips_at_once(self, tokens_bnd: Tensor) -> int:
        on_cpu = tokens_bnd.device.type == "cpu"
        most = self.most_tokens or (CPU_TOKENS if on_cpu else DEVICE_TOKENS)
        return max(1, most // tokens_bnd.shape[1])

    def _logits(self, probe: AttentiveProbe, tokens_bnd: Tensor) -> Tensor:
        low = self.dtype == torch.bfloat16
        with torch.autocast(tokens_bnd.device.type, torch.bfloat16, enabled=low):
            logits_bc = probe(tokens_bnd.to(torch.promote_types(tokens_bnd.dtype, torch.float32)))
        return logits_bc.to(torch.promote_types(logits_bc.dtype, torch.float32))
