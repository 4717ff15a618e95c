from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.models import attention as module
from salt_plugin.models.attention import attention, blocked_attention


def _inputs(tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Laid out as a projection leaves them: [B, N, H, d], seen as [B, H, N, d].
    return [
        torch.randn(2, tokens, 3, 8, generator=generator, dtype=torch.float64)
        .to(dtype)
        .transpose(1, 2)
        .requires_grad_()
        for _ in range(3)
    ]


def _with_gradients(mixed: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(mixed.shape, generator=generator, dtype=torch.float64).to(mixed.dtype)
    return [mixed, *torch.autograd.grad((mixed * weight).sum(), inputs)]


# Blocks of one head, of two, of four with a rest, and of all; kept and computed again.
@pytest.mark.parametrize("kept_bytes", [0, 10**9])
@pytest.mark.parametrize("heads", [1, 2, 4, 100])
@pytest.mark.parametrize("safe_score", [0.0, 100.0])
def test_blocks_give_what_the_fused_kernel_gives(
    heads: int, kept_bytes: int, safe_score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = 11
    monkeypatch.setattr(module, "SAFE_SCORE", safe_score)
    monkeypatch.setattr(module, "BLOCK_BYTES", heads * tokens**2 * 8)
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    inputs = _inputs(tokens)
    ours = _with_gradients(blocked_attention(*inputs), inputs)
    theirs = _with_gradients(F.scaled_dot_product_attention(*inputs), inputs)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(blocked_attention(*inputs), ours[0], rtol=1e-10, atol=1e-12)


def test_scores_of_any_size_are_safe() -> None:
    scale = torch.tensor([1e3, 1e-3, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    q, k, v = _inputs(9)
    # Scores of about 1e6, of 1e-6 and of 1.
    inputs = [(q.detach() * scale).requires_grad_(), (k.detach() * scale).requires_grad_(), v]
    ours = _with_gradients(blocked_attention(*inputs), inputs)
    theirs = _with_gradients(F.scaled_dot_product_attention(*inputs), inputs)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-9)


def test_a_head_that_is_not_finite_leaves_the_others_as_they_are() -> None:
    inputs = _inputs(9)
    expected = blocked_attention(*inputs)
    with torch.no_grad():
        inputs[0][:, 1] = torch.nan
    found = blocked_attention(*inputs)
    assert found[:, 1].isnan().all()
    torch.testing.assert_close(found[:, ::2], expected[:, ::2])


def test_analytic_gradient_is_the_numerical_one() -> None:
    assert torch.autograd.gradcheck(blocked_attention, _inputs(3))


def test_bfloat16_errs_no_more_than_its_own_rounding() -> None:
    exact = _inputs(50)
    rounded = _inputs(50, torch.bfloat16)
    wanted = _with_gradients(F.scaled_dot_product_attention(*exact), exact)
    found = _with_gradients(attention(*rounded), rounded)
    for mine, expected in zip(found, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()
