from __future__ import annotations

import math

import pytest
import torch

from salt_plugin.losses import PixelLoss, normalize_patches


def _plain_normalise(patch: list[float], channels: int) -> list[float]:
    """One tubelet as VideoMAE does it: each channel by its own mean and unbiased deviation."""
    size = len(patch) // channels
    result = []
    for c in range(channels):
        pixels = patch[c * size : (c + 1) * size]
        mean = sum(pixels) / size
        variance = sum((pixel - mean) ** 2 for pixel in pixels) / (size - 1)
        result += [(pixel - mean) / (math.sqrt(variance) + 1e-6) for pixel in pixels]
    return result


def _patches(channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(2, 4, channels * 8, generator=generator)
    return patches * torch.rand(2, 4, 1, generator=generator) * 3 + 0.7


@pytest.mark.parametrize("channels", [1, 3])
def test_normalises_each_channel_of_each_tubelet(channels: int) -> None:
    patches = _patches(channels)
    normalised, mean, std = normalize_patches(patches, channels)
    expected = [[_plain_normalise(p.tolist(), channels) for p in clip] for clip in patches]
    torch.testing.assert_close(normalised, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert mean.shape == std.shape == (2, 4, channels, 1)
    undone = (normalised.view(2, 4, channels, -1) * (std + 1e-6) + mean).flatten(2)
    torch.testing.assert_close(undone, patches)


def test_order_of_values_is_that_of_patchify() -> None:
    """VideoMAE keeps channels last, we keep them first: the same pixels must share a mean."""
    generator = torch.Generator().manual_seed(0)
    channels_last = torch.rand(5, 2 * 4 * 4, 3, generator=generator)
    mean = channels_last.mean(-2, keepdim=True)
    std = channels_last.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6
    videomae = (channels_last - mean) / std
    ours = normalize_patches(channels_last.transpose(1, 2).flatten(1))[0]
    torch.testing.assert_close(ours.view(5, 3, 32).transpose(1, 2), videomae)


def test_loss_is_the_mean_squared_error_on_normalised_pixels() -> None:
    patches, prediction = _patches(), torch.randn(2, 4, 24)
    squares = [
        (p - t) ** 2
        for b in range(2)
        for m in range(4)
        for p, t in zip(
            prediction[b, m].tolist(), _plain_normalise(patches[b, m].tolist(), 3), strict=True
        )
    ]
    loss = PixelLoss()(prediction, patches)
    assert loss.item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_without_normalisation_pixels_are_the_target() -> None:
    patches, prediction = _patches(), torch.randn(2, 4, 24)
    loss = PixelLoss(normalize=False)(prediction, patches)
    assert loss.item() == pytest.approx((prediction - patches).square().mean().item(), rel=1e-6)


def test_brightness_and_contrast_of_a_channel_do_not_matter() -> None:
    """Hence the statistics that the clip was normalised with do not matter either."""
    patches, prediction = _patches(), torch.randn(2, 4, 24)
    gain = torch.tensor([0.5, 2.0, 7.0]).repeat_interleave(8)
    offset = torch.tensor([-3.0, 0.1, 20.0]).repeat_interleave(8)
    torch.testing.assert_close(
        PixelLoss()(prediction, patches * gain + offset),
        PixelLoss()(prediction, patches),
        rtol=1e-4,
        atol=1e-5,
    )


def test_flat_tubelets_are_finite() -> None:
    normalised = normalize_patches(torch.full((1, 1, 24), 0.25))[0]
    assert torch.equal(normalised, torch.zeros(1, 1, 24))


def test_gradient_goes_into_the_prediction_only() -> None:
    patches = _patches().requires_grad_(True)
    prediction = torch.randn(2, 4, 24, requires_grad=True)
    PixelLoss()(prediction, patches).backward()
    assert patches.grad is None
    assert prediction.grad.abs().max() > 0


def test_half_precision_is_measured_in_float32() -> None:
    patches, prediction = _patches().bfloat16(), torch.randn(2, 4, 24).bfloat16()
    loss = PixelLoss()(prediction, patches)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, PixelLoss()(prediction.float(), patches.float()))
