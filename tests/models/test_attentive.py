from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.models.attentive import AttentiveProbe


def _probe(depth: int = 4) -> AttentiveProbe:
    torch.manual_seed(0)
    probe = AttentiveProbe(12, num_classes=5, num_heads=3, depth=depth).double()
    for parameter in probe.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return probe


def _tokens() -> Tensor:
    return torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _restated(probe: AttentiveProbe, tokens_nd: Tensor) -> tuple[Tensor, Tensor]:
    """One clip, head by head, from the weights alone: logits [C], query attention [H, N]."""
    weights = dict(probe.named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def mlp(name: str, x: Tensor) -> Tensor:
        return linear(f"{name}.fc2", F.gelu(linear(f"{name}.fc1", x)))

    def mix(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        mixed, shares = [], []
        for head in range(probe.num_heads):
            a, b, c = (part.chunk(probe.num_heads, -1)[head] for part in (q, k, v))
            shares.append((a @ b.T / math.sqrt(a.shape[-1])).softmax(-1))
            mixed.append(shares[-1] @ c)
        return torch.cat(mixed, -1), torch.stack(shares)

    x = tokens_nd
    for i in range(probe.depth - 1):
        block = f"pooler.blocks.{i}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
        x = x + linear(f"{block}.attn.proj", mix(q, k, v)[0])
        x = x + mlp(f"{block}.mlp", norm(f"{block}.norm2", x))
    cross, query = "pooler.cross_attention_block", weights["pooler.query_tokens"][0]
    k, v = linear(f"{cross}.xattn.kv", norm(f"{cross}.norm1", x)).chunk(2, -1)
    mixed, shares = mix(linear(f"{cross}.xattn.q", query), k, v)
    query = query + mixed
    query = query + mlp(f"{cross}.mlp", norm(f"{cross}.norm2", query))
    return linear("linear", query)[0], shares[:, 0]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_forward_and_attention_agree_with_a_plain_restatement(depth: int) -> None:
    probe, tokens = _probe(depth), _tokens()
    logits, shares = probe(tokens), probe.attention(tokens)
    for clip in range(len(tokens)):
        expected_logits, expected_shares = _restated(probe, tokens[clip])
        torch.testing.assert_close(logits[clip], expected_logits, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(shares[clip], expected_shares, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_the_order_of_tokens_does_not_matter() -> None:
    probe, tokens = _probe(), _tokens()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(probe(tokens[:, order]), probe(tokens))
    torch.testing.assert_close(
        probe.attention(tokens[:, order]), probe.attention(tokens)[..., order]
    )


@pytest.mark.parametrize(
    ("dim", "asked", "found"),
    [(192, 16, 16), (1024, 16, 16), (100, 16, 10), (13, 16, 13), (7, 4, 1)],
)
def test_heads_are_the_most_that_divide_the_width(dim: int, asked: int, found: int) -> None:
    assert AttentiveProbe(dim, 2, num_heads=asked, depth=1).num_heads == found


def test_initial_weights_are_those_of_vjepa2() -> None:
    torch.manual_seed(0)
    weights = AttentiveProbe(128, num_classes=50).state_dict()
    cross = "pooler.cross_attention_block"
    stds = {
        "pooler.query_tokens": 0.02,
        "pooler.blocks.0.attn.qkv.weight": 0.02,
        "pooler.blocks.0.attn.proj.weight": 0.02 / math.sqrt(2),
        "pooler.blocks.2.mlp.fc2.weight": 0.02 / math.sqrt(6),
        f"{cross}.xattn.kv.weight": 0.02,
        f"{cross}.mlp.fc2.weight": 0.02 / math.sqrt(6),
        "linear.weight": 1 / math.sqrt(3 * 128),
    }
    for name, std in stds.items():
        tolerance = 4 / math.sqrt(2 * weights[name].numel())
        assert weights[name].std().item() == pytest.approx(std, rel=tolerance), name
    assert all((w == 0).all() for name, w in weights.items() if name.endswith("fc1.bias"))
