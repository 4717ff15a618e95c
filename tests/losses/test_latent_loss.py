from __future__ import annotations

import math

import pytest
import torch

from salt_plugin.errors import ConfigError
from salt_plugin.losses import LatentLoss

DISTANCES = ("l1", "smooth_l1", "mse", "cosine")


def _latents(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


def _layer_norm(token: list[float]) -> list[float]:
    mean = sum(token) / len(token)
    variance = sum((value - mean) ** 2 for value in token) / len(token)
    return [(value - mean) / math.sqrt(variance + 1e-5) for value in token]


def _distance(name: str, p: list[float], t: list[float]) -> float:
    """Mean distance over the channels of one token."""
    gaps = [abs(a - b) for a, b in zip(p, t, strict=True)]
    if name == "l1":
        return sum(gaps) / len(gaps)
    if name == "mse":
        return sum(gap**2 for gap in gaps) / len(gaps)
    if name == "smooth_l1":
        return sum(0.5 * gap**2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)
    dot = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - dot / math.sqrt(sum(a * a for a in p) * sum(b * b for b in t))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", DISTANCES)
def test_matches_the_formula_token_by_token(name: str, normalize: bool) -> None:
    prediction, target = _latents(0), _latents(1)
    distances = []
    for p, t in zip(prediction.flatten(0, 1).tolist(), target.flatten(0, 1).tolist(), strict=True):
        distances.append(_distance(name, p, _layer_norm(t) if normalize else t))
    loss = LatentLoss(name, normalize)(prediction, target)
    assert loss.item() == pytest.approx(sum(distances) / len(distances), rel=1e-5)


def test_defaults_are_l1_on_normalised_targets() -> None:
    prediction, target = _latents(0), _latents(1)
    assert torch.equal(LatentLoss()(prediction, target), LatentLoss("l1", True)(prediction, target))


def test_normalised_targets_ignore_scale_and_offset_of_a_token() -> None:
    prediction, target = _latents(0), _latents(1)
    moved = target * torch.tensor([0.5, 3.0, 10.0])[:, None] - 4
    torch.testing.assert_close(
        LatentLoss()(prediction, moved), LatentLoss()(prediction, target), rtol=1e-4, atol=1e-5
    )


def test_cosine_ignores_the_length_of_the_prediction() -> None:
    prediction, target = _latents(0), _latents(1)
    loss = LatentLoss("cosine")
    torch.testing.assert_close(loss(prediction * 3, target), loss(prediction, target))
    assert loss(torch.nn.functional.layer_norm(target, (5,)), target).item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("name", DISTANCES)
def test_gradient_goes_into_the_prediction_only(name: str) -> None:
    prediction, target = _latents(0).requires_grad_(True), _latents(1).requires_grad_(True)
    LatentLoss(name)(prediction, target).backward()
    assert target.grad is None
    assert prediction.grad.abs().max() > 0


def test_has_no_parameters_and_measures_in_float32() -> None:
    loss = LatentLoss()
    assert list(loss.parameters()) == []
    value = loss(_latents(0).bfloat16(), _latents(1).bfloat16())
    assert value.dtype == torch.float32
    assert value.shape == ()


def test_unknown_distance() -> None:
    with pytest.raises(ConfigError, match=r"method\.loss\.distance='l3' is unknown") as error:
        LatentLoss("l3")
    for name in DISTANCES:
        assert name in str(error.value)
