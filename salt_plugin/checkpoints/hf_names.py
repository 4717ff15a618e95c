"""Parameter names of Hugging Face's `VJEPA2Model` from ours, and back.

Beside other names, that model has one matrix each for queries, keys and values, and its mask
tokens in one tensor [M, 1, 1, D].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ENCODER_PREFIX = "encoder."
PREDICTOR_PREFIX = "predictor."
PREFIXES = {
    "patch_embed.": "encoder.embeddings.patch_embeddings.",
    "blocks.": "encoder.layer.",
    "norm.": "encoder.layernorm.",
    "predictor_embed.": "predictor.embeddings.predictor_embeddings.",
    "predictor_blocks.": "predictor.layer.",
    "predictor_norm.": "predictor.layernorm.",
    "predictor_proj.": "predictor.proj.",
}
MASK_TOKENS = "predictor.embeddings.mask_tokens"
QKV = ("query", "key", "value")


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of our encoder or predictor under Hugging Face's names."""
    renamed: dict[str, Tensor] = {}
    mask_tokens = []
    for name, value in state.items():
        if name.startswith("mask_tokens."):
            mask_tokens.append(value)
            continue
        theirs = _replaced(name, PREFIXES).replace(".attn.", ".attention.")
        if ".qkv." in theirs:
            for part, piece in zip(QKV, value.chunk(3), strict=True):
                renamed[theirs.replace(".qkv.", f".{part}.")] = piece
        else:
            renamed[theirs] = value
    if mask_tokens:
        renamed[MASK_TOKENS] = torch.stack(mask_tokens)
    return renamed


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of one of Hugging Face's models under our names."""
    back = {theirs: ours for ours, theirs in PREFIXES.items()}
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == MASK_TOKENS:
            renamed |= {f"mask_tokens.{i}": token for i, token in enumerate(value)}
            continue
        ours = _replaced(name, back).replace(".attention.", ".attn.")
        if ".attn.query." in ours:
            parts = [state[name.replace(".query.", f".{part}.")] for part in QKV]
            renamed[ours.replace(".query.", ".qkv.")] = torch.cat(parts)
        elif ".attn.key." not in ours and ".attn.value." not in ours:
            renamed[ours] = value
    return renamed


def _replaced(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise KeyError(name)
