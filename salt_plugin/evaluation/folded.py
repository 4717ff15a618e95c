"""The weights of several attentive probes as one stack, with what comes before a product folded in.

Three rewritings leave the function of a probe as it is and save work at every token:

- A LayerNorm's scale and shift go into the weights after it, so that tokens are only standardised.
- The query of the cross-attention is learned, not computed from tokens. Its product with the
  weights of the keys is one vector [D] a head; keys are never made. Their bias shifts all scores
  of a head alike and drops out of the softmax.
- The weights of the values are applied to the mixture of standardised tokens, one vector a head,
  and not to each token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from salt_plugin.evaluation.attentive import AttentiveProbe


class Affine(NamedTuple):
    """`x @ weight + bias` of P probes: [P, D, E] and [P, 1, E]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_ptd: Tensor) -> Tensor:
        """Maps [P, T, D] to [P, T, E], in the dtype of the weights."""
        return torch.baddbmm(self.bias, x_ptd.to(self.weight.dtype), self.weight)

    def of_shared(self, x_td: Tensor) -> Tensor:
        """Maps tokens [T, D] that all probes share to [T, P, E] by one wide product."""
        P, D, E = self.weight.shape
        wide = self.weight.transpose(1, 2).reshape(P * E, D)
        mapped = F.linear(x_td.to(wide.dtype), wide, self.bias.flatten())
        return mapped.view(-1, P, E)


class SelfWeights(NamedTuple):
    """A block of self-attention: norm 1 is folded into `qkv`, norm 2 into `fc1`."""

    qkv: Affine
    proj: Affine
    fc1: Affine
    fc2: Affine


class CrossWeights(NamedTuple):
    """The cross-attention: `keys` [P, D, H] score standardised tokens, `values` act by head."""

    query_p1d: Tensor
    keys: Tensor
    values: Affine
    fc1: Affine
    fc2: Affine


class FoldedProbes(NamedTuple):
    """All weights of P probes, float32 and differentiable in the probes' parameters."""

    blocks: tuple[SelfWeights, ...]
    cross: CrossWeights
    linear: Affine

    def tensors(self) -> list[Tensor]:
        """Returns the tensors in a fixed order."""
        return tree_leaves(self)

    def map(self, change: Callable[[Tensor], Tensor]) -> FoldedProbes:
        """Returns the same structure with each tensor changed."""
        return tree_map(change, self)


def fold(probes: Sequence[AttentiveProbe]) -> FoldedProbes:
    """Stacks the weights of probes of one shape and folds them; gradients flow back to each."""
    names = [name for name, _ in probes[0].named_parameters()]
    stacked = {name: torch.stack([probe.get_parameter(name) for probe in probes]) for name in names}
    blocks = tuple(
        _self_weights(stacked, f"pooler.blocks.{i}.") for i in range(probes[0].depth - 1)
    )
    cross = _cross_weights(stacked, probes[0].num_heads)
    return FoldedProbes(blocks, cross, _affine(stacked, "linear"))


def _self_weights(stacked: dict[str, Tensor], prefix: str) -> SelfWeights:
    return SelfWeights(
        qkv=_after_norm(stacked, f"{prefix}norm1", _affine(stacked, f"{prefix}attn.qkv")),
        proj=_affine(stacked, f"{prefix}attn.proj"),
        fc1=_after_norm(stacked, f"{prefix}norm2", _affine(stacked, f"{prefix}mlp.fc1")),
        fc2=_affine(stacked, f"{prefix}mlp.fc2"),
    )


def _cross_weights(stacked: dict[str, Tensor], num_heads: int) -> CrossWeights:
    prefix = "pooler.cross_attention_block."
    query_p1d = stacked["pooler.query_tokens"].flatten(1, 2)
    q_phd = _affine(stacked, f"{prefix}xattn.q")(query_p1d).unflatten(-1, (num_heads, -1))[:, 0]
    kv = _after_norm(stacked, f"{prefix}norm1", _affine(stacked, f"{prefix}xattn.kv"))
    k_weight, v_weight = kv.weight.chunk(2, -1)
    keys = torch.einsum("pxhd,phd->pxh", k_weight.unflatten(-1, (num_heads, -1)), q_phd)
    return CrossWeights(
        query_p1d=query_p1d,
        keys=keys * q_phd.shape[-1] ** -0.5,
        values=Affine(v_weight, kv.bias.chunk(2, -1)[1]),
        fc1=_after_norm(stacked, f"{prefix}norm2", _affine(stacked, f"{prefix}mlp.fc1")),
        fc2=_affine(stacked, f"{prefix}mlp.fc2"),
    )


def _affine(stacked: dict[str, Tensor], name: str) -> Affine:
    weight = stacked[f"{name}.weight"].transpose(1, 2)
    return Affine(weight, stacked[f"{name}.bias"].unsqueeze(1))


def _after_norm(stacked: dict[str, Tensor], norm: str, affine: Affine) -> Affine:
    scale_pd, shift_pd = stacked[f"{norm}.weight"], stacked[f"{norm}.bias"]
    bias = torch.baddbmm(affine.bias, shift_pd.unsqueeze(1), affine.weight)
    return Affine(scale_pd.unsqueeze(2) * affine.weight, bias)
