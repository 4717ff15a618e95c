"""The weights of several attentive probes as one stack, arranged to save work at every token.

Three rewritings leave the function of a probe as it is:

- The scale and shift of the first LayerNorm go into the weights after it: its tokens are those of
  all probes, and are only standardised. So do those of the norm before the cross-attention.
- The query of the cross-attention is learned, not computed from tokens. Its product with the
  weights of the keys is one vector [D] a head; keys are never made. Their bias shifts all scores
  of a head alike and drops out of the softmax.
- The weights of the values are applied to the mixture of standardised tokens, one vector a head,
  and not to each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from salt_plugin.evaluation.attentive import AttentiveProbe


class Affine(NamedTuple):
    """A linear layer of P probes: weights [P, E, D] and biases [P, E]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_ptd: Tensor) -> Tensor:
        """Maps [P, T, D] to [P, T, E], in the dtype of the weights."""
        dtype = self.weight.dtype
        mapped: Tensor = _Linear.apply(x_ptd.to(dtype), self.weight, self.bias.to(dtype))
        return mapped

    def of_shared(self, x_td: Tensor) -> Tensor:
        """Maps tokens [T, D] that all probes share to [T, P, E] by one wide product."""
        dtype = self.weight.dtype
        bias = self.bias.flatten().to(dtype)
        mapped = F.linear(x_td.to(dtype), self.weight.flatten(0, 1), bias)
        return mapped.unflatten(-1, self.bias.shape)


class Norm(NamedTuple):
    """LayerNorms of P probes: scales and shifts [P, D]."""

    scale: Tensor
    shift: Tensor

    def __call__(self, x_ptd: Tensor) -> Tensor:
        """Maps [P, T, D] to [P, T, D]."""
        if len(self.scale) == 1:
            return F.layer_norm(x_ptd, x_ptd.shape[-1:], self.scale[0], self.shift[0])
        unit_ptd = F.layer_norm(x_ptd, x_ptd.shape[-1:])
        return torch.addcmul(self.shift.unsqueeze(1), unit_ptd, self.scale.unsqueeze(1))


class SelfWeights(NamedTuple):
    """A block of self-attention; `norm1` is None where `qkv` takes standardised tokens."""

    norm1: Norm | None
    qkv: Affine
    proj: Affine
    norm2: Norm
    fc1: Affine
    fc2: Affine


class CrossWeights(NamedTuple):
    """The cross-attention: `keys` [P, H, D] score standardised tokens, `values` act by head."""

    query_pd: Tensor
    keys: Tensor
    values: Affine
    norm2: Norm
    fc1: Affine
    fc2: Affine


class FoldedProbes(NamedTuple):
    """All weights of P probes, differentiable in the probes' parameters."""

    blocks: tuple[SelfWeights, ...]
    cross: CrossWeights
    linear: Affine

    def tensors(self) -> list[Tensor]:
        """Returns the tensors in a fixed order."""
        return [leaf for leaf in tree_leaves(self) if isinstance(leaf, Tensor)]

    def detached(self, dtype: torch.dtype) -> FoldedProbes:
        """Returns a copy outside the graph, its matrices in another dtype, its vectors as are."""
        return tree_map_only(
            Tensor, lambda w: w.detach().to(dtype) if w.dim() == 3 else w.detach(), self
        )


def fold(probes: Sequence[AttentiveProbe]) -> FoldedProbes:
    """Stacks and arranges the weights of probes of one shape; gradients flow back to each."""
    stacked = {
        name: _stack([probe.get_parameter(name) for probe in probes])
        for name, _ in probes[0].named_parameters()
    }
    blocks = tuple(
        _self_weights(stacked, f"pooler.blocks.{i}.", first=i == 0)
        for i in range(probes[0].depth - 1)
    )
    cross = _cross_weights(stacked, probes[0].num_heads)
    return FoldedProbes(blocks, cross, _affine(stacked, "linear"))


def _stack(parameters: list[Tensor]) -> Tensor:
    # One probe's weights need no copy.
    return torch.stack(parameters) if len(parameters) > 1 else parameters[0].unsqueeze(0)


def _self_weights(stacked: dict[str, Tensor], prefix: str, first: bool) -> SelfWeights:
    norm1, qkv = _norm(stacked, f"{prefix}norm1"), _affine(stacked, f"{prefix}attn.qkv")
    return SelfWeights(
        norm1=None if first else norm1,
        qkv=_after_norm(norm1, qkv) if first else qkv,
        proj=_affine(stacked, f"{prefix}attn.proj"),
        norm2=_norm(stacked, f"{prefix}norm2"),
        fc1=_affine(stacked, f"{prefix}mlp.fc1"),
        fc2=_affine(stacked, f"{prefix}mlp.fc2"),
    )


def _cross_weights(stacked: dict[str, Tensor], num_heads: int) -> CrossWeights:
    prefix = "pooler.cross_attention_block."
    query_p1d = stacked["pooler.query_tokens"].flatten(1, 2)
    q_p1d = _affine(stacked, f"{prefix}xattn.q")(query_p1d)
    q_phd = q_p1d.squeeze(1).unflatten(-1, (num_heads, -1))
    kv = _after_norm(_norm(stacked, f"{prefix}norm1"), _affine(stacked, f"{prefix}xattn.kv"))
    k_weight, v_weight = kv.weight.chunk(2, 1)
    keys = torch.einsum("phdx,phd->phx", k_weight.unflatten(1, (num_heads, -1)), q_phd)
    return CrossWeights(
        query_pd=query_p1d.squeeze(1),
        keys=keys * q_phd.shape[-1] ** -0.5,
        values=Affine(v_weight, kv.bias.chunk(2, -1)[1]),
        norm2=_norm(stacked, f"{prefix}norm2"),
        fc1=_affine(stacked, f"{prefix}mlp.fc1"),
        fc2=_affine(stacked, f"{prefix}mlp.fc2"),
    )


def _affine(stacked: dict[str, Tensor], name: str) -> Affine:
    return Affine(stacked[f"{name}.weight"], stacked[f"{name}.bias"])


def _norm(stacked: dict[str, Tensor], name: str) -> Norm:
    return Norm(stacked[f"{name}.weight"], stacked[f"{name}.bias"])


def _after_norm(norm: Norm, affine: Affine) -> Affine:
    shifted = (affine.weight @ norm.shift.unsqueeze(-1)).squeeze(-1)
    return Affine(affine.weight * norm.scale.unsqueeze(1), affine.bias + shifted)


class _Linear(torch.autograd.Function):
    """`x @ weight^T + bias` for each probe, with the weights' gradient laid out as the weights."""

    @staticmethod
    def forward(ctx: Any, x_ptd: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x_ptd, weight)
        return torch.baddbmm(bias.unsqueeze(1), x_ptd, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x_ptd, weight = ctx.saved_tensors
        d_x = torch.bmm(d_out, weight) if ctx.needs_input_grad[0] else None
        return d_x, torch.bmm(d_out.transpose(1, 2), x_ptd), d_out.sum(1)
