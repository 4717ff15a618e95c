from __future__ import annotations

import math

import pytest
import torch

from salt_plugin.evaluation.spectrum import effective_rank, spread


def test_equal_singular_values_give_their_number() -> None:
    torch.manual_seed(0)
    orthonormal, _ = torch.linalg.qr(torch.randn(50, 7))
    assert effective_rank(3 * orthonormal) == pytest.approx(7)
    assert effective_rank(torch.eye(5)) == pytest.approx(5)


def test_one_direction_is_rank_one_and_nothing_is_rank_zero() -> None:
    assert effective_rank(torch.outer(torch.arange(9.0), torch.ones(4))) == pytest.approx(1)
    assert effective_rank(torch.zeros(9, 4)) == 0


def test_unequal_singular_values_give_the_exponential_of_their_entropy() -> None:
    features = torch.zeros(10, 4)
    features[0, 0], features[1, 1] = 3.0, 1.0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(features) == pytest.approx(math.exp(entropy))


def test_the_effective_rank_ignores_scale_rotation_and_order_of_samples() -> None:
    torch.manual_seed(1)
    features = torch.randn(40, 6) * torch.tensor([5.0, 3, 1, 1, 0.1, 0.1])
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    rank = effective_rank(features)
    assert 1 < rank < 6
    for same in (100 * features, features @ rotation, features[torch.randperm(40)]):
        assert effective_rank(same) == pytest.approx(rank, rel=1e-5)


def test_the_spread_is_the_mean_deviation_of_a_feature() -> None:
    features = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert spread(features) == pytest.approx((math.sqrt(2) + 0) / 2)
    assert spread(features + 7) == pytest.approx(spread(features))
    assert spread(torch.ones(4, 3)) == 0
