"""Many attentive probes as one batched computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.evaluation.attentive import AttentiveProbe
from salt_plugin.evaluation.folded import FoldedProbes, SelfWeights, fold
from salt_plugin.models.attention import attention

# Tokens of all probes at once: on CPUs their activations stay in cache, and a probe that has as
# many of its own is not stacked with others, which costs more than it wins where weights are wide;
CPU_TOKENS = 1568
# elsewhere they stay within this memory.
DEVICE_BYTES = 2**33
ACTIVATION_BYTES_PER_FEATURE = 160


class ProbeBank:
    """P probes of one shape that see the same tokens: one graph forward, one backward.

    Each linear layer is one product batched over probes (the first, whose tokens all share, one
    wide product) and each attention one call over the heads of all probes. Nothing but data is
    shared: the gradient of a probe is that of the probe alone, even where another is no longer
    finite.

    A batch is cut into parts, a few probes on a few clips, that bound memory; the gradients of
    their sum of losses add up to those of the whole.

    Args:
        probes: Of one shape; they keep the parameters, and their `grad`.
        dtype: Of products and attention; norms, the residual stream and losses are float32 or
            wider.
        most_tokens: Tokens of all probes in a part; None takes what suits the device.
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

    def backward(self, tokens_bnd: Tensor, labels_b: Tensor) -> Tensor:
        """Adds to the gradients of each probe those of its mean cross-entropy over the batch.

        Args:
            tokens_bnd: Tokens [B, N, D], floating.
            labels_b: Classes, int64 [B].

        Returns:
            The losses [P], detached.
        """
        losses = []
        probes_each, clips_each = self._part(tokens_bnd)
        for probes in _split(self.probes, probes_each):
            folded = fold(probes)
            used = folded.detached(self.dtype)
            leaves = [leaf.requires_grad_() for leaf in used.tensors()]
            totals: list[Tensor] = []
            loss_p = torch.zeros(len(probes), device=tokens_bnd.device)
            for tokens, labels in zip(
                tokens_bnd.split(clips_each), labels_b.split(clips_each), strict=True
            ):
                part_p = _cross_entropy(self._logits(used, tokens), labels) / len(labels_b)
                grads = torch.autograd.grad(part_p.sum(), leaves)
                if totals:
                    for total, grad in zip(totals, grads, strict=True):
                        total += grad
                else:
                    # Copies, as one tensor may be the gradient of two; as exact as the parameters.
                    totals = [
                        grad.to(tensor.dtype, copy=True)
                        for grad, tensor in zip(grads, folded.tensors(), strict=True)
                    ]
                loss_p += part_p.detach()
            torch.autograd.backward(folded.tensors(), totals)
            losses.append(loss_p)
        return torch.cat(losses)

    @torch.no_grad()
    def logits(self, tokens_bnd: Tensor) -> Tensor:
        """Returns float32 logits [P, B, C] of tokens [B, N, D], without gradients."""
        probes_each, clips_each = self._part(tokens_bnd)
        found = []
        for probes in _split(self.probes, probes_each):
            folded = fold(probes).detached(self.dtype)
            parts = [self._logits(folded, tokens) for tokens in tokens_bnd.split(clips_each)]
            found.append(torch.cat(parts, 1))
        return torch.cat(found)

    def _part(self, tokens_bnd: Tensor) -> tuple[int, int]:
        """Returns how many probes see how many clips at once; more clips come first."""
        B, N, D = tokens_bnd.shape
        most = self.most_tokens
        if most is None and tokens_bnd.device.type == "cpu":
            most = CPU_TOKENS
        elif most is None:
            most = DEVICE_BYTES // (ACTIVATION_BYTES_PER_FEATURE * D)
        clips = min(B, max(1, most // N))
        return max(1, most // (clips * N)), clips

    def _logits(self, folded: FoldedProbes, tokens_bnd: Tensor) -> Tensor:
        num_heads = self.probes[0].num_heads
        tokens = tokens_bnd.to(torch.promote_types(tokens_bnd.dtype, torch.float32))
        x_pbnd = tokens.unsqueeze(0)
        for block in folded.blocks:
            x_pbnd = _self_block(block, x_pbnd, num_heads)
        cross = folded.cross
        z_pbnd = _standardised(x_pbnd).to(self.dtype)
        scores_pbnh = z_pbnd @ cross.keys.transpose(1, 2).unsqueeze(1)
        weights_pbhn = scores_pbnh.transpose(-2, -1).softmax(-1)
        mixed_pbhd = weights_pbhn @ z_pbnd
        values = cross.values.weight.unflatten(1, (num_heads, -1))
        value_pbd = torch.einsum("pbhx,phdx->pbhd", mixed_pbhd, values).flatten(2)
        query_pbd = cross.query_pd.unsqueeze(1) + value_pbd + cross.values.bias.unsqueeze(1)
        query_pbd = query_pbd + cross.fc2(F.gelu(cross.fc1(cross.norm2(query_pbd))))
        return folded.linear(query_pbd).to(tokens.dtype)


def _self_block(block: SelfWeights, x_pbnd: Tensor, num_heads: int) -> Tensor:
    """Maps tokens [P, B, N, D], or [1, B, N, D] that all probes share, to [P, B, N, D]."""
    shared, B, N, D = x_pbnd.shape
    P = len(block.qkv.weight)
    x_ptd = x_pbnd.flatten(1, 2)
    z_ptd = _standardised(x_ptd) if block.norm1 is None else block.norm1(x_ptd)
    if shared < P:
        # [T, P, 3D], with its clips and probes put in order by the copy that attention makes.
        qkv = block.qkv.of_shared(z_ptd[0]).unflatten(0, (B, N)).permute(2, 0, 1, 3)
    else:
        qkv = block.qkv(z_ptd).unflatten(1, (B, N))
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
    mixed_ptd = attention(q, k, v).transpose(1, 2).reshape(P, B * N, D)
    x_ptd = x_ptd + block.proj(mixed_ptd)
    x_ptd = x_ptd + block.fc2(F.gelu(block.fc1(block.norm2(x_ptd))))
    return x_ptd.unflatten(1, (B, N))


def _standardised(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _cross_entropy(logits_pbc: Tensor, labels_b: Tensor) -> Tensor:
    """Returns the sum over clips for each probe, [P]."""
    P, B, _ = logits_pbc.shape
    losses = F.cross_entropy(logits_pbc.flatten(0, 1), labels_b.repeat(P), reduction="none")
    return losses.view(P, B).sum(1)


def _split(probes: list[AttentiveProbe], size: int) -> Iterator[list[AttentiveProbe]]:
    for start in range(0, len(probes), size):
        yield probes[start : start + size]
