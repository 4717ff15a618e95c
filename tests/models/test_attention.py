from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_plugin.models.attention import attention


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


@pytest.mark.parametrize("tokens", [50, 600])
def test_bfloat16_errs_no_more_than_its_own_rounding(tokens: int) -> None:
    exact = _inputs(tokens)
    rounded = _inputs(tokens, torch.bfloat16)
    wanted = _with_gradients(F.scaled_dot_product_attention(*exact), exact)
    found = _with_gradients(attention(*rounded), rounded)
    for mine, expected in zip(found, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - expected).square().mean().sqrt() < 0.02 * expected.square().mean().sqrt()
