from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.errors import ConfigError
from salt_plugin.transforms import SALTEvalTransform, SALTTransform


def _frames(frames: int = 6, height: int = 40, width: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)
    return one.repeat(frames, 1, 1, 1)


@pytest.mark.parametrize(("size", "shape"), [(32, (32, 32)), ((16, 48), (16, 48))])
@pytest.mark.parametrize(
    ("transform_class", "dtype"),
    [(SALTTransform, torch.uint8), (SALTEvalTransform, torch.float32)],
)
def test_shape_and_dtype(
    transform_class: type, dtype: torch.dtype, size: int, shape: tuple[int, int]
) -> None:
    clip = transform_class(size)(_frames())
    assert clip.shape == (3, 6, *shape)
    assert clip.dtype == dtype
    assert clip.is_contiguous()


def test_one_crop_and_one_flip_for_all_frames() -> None:
    transform = SALTTransform(24)
    for seed in range(10):
        torch.manual_seed(seed)
        clip = transform(_frames())
        assert torch.equal(clip, clip[:, :1].expand_as(clip))


def test_crops_vary_and_follow_torchs_generator() -> None:
    transform = SALTTransform(24)
    torch.manual_seed(0)
    first, second = transform(_frames()), transform(_frames())
    torch.manual_seed(0)
    assert torch.equal(first, transform(_frames()))
    assert not torch.equal(first, second)


def test_crop_area_and_aspect_stay_in_range() -> None:
    """On a ramp of x and y the crop's extent can be read from its values."""
    height = width = 200
    ramp = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    ramp[:, 0] = torch.arange(width).to(torch.uint8)
    ramp[:, 1] = torch.arange(height).to(torch.uint8)[:, None]
    transform = SALTTransform(100, hflip=0.0)
    torch.manual_seed(0)
    areas, ratios = [], []
    for _ in range(100):
        x, y, _ = transform.denormalize(transform(ramp))[:, 0] * 255
        w, h = (x[50, -1] - x[50, 0] + 1).item(), (y[-1, 50] - y[0, 50] + 1).item()
        areas.append(w * h / (height * width))
        ratios.append(w / h)
    assert 0.27 < min(areas) < 0.4
    assert 0.85 < max(areas) <= 1.03
    assert min(ratios) > 0.71
    assert max(ratios) < 1.42


@pytest.mark.parametrize(("hflip", "flipped"), [(0.0, False), (1.0, True)])
def test_flip(hflip: float, flipped: bool) -> None:
    frames = _frames(height=32, width=32)
    transform = SALTTransform(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=hflip)
    expected = SALTEvalTransform(32)(frames.flip(-1) if flipped else frames)
    assert torch.equal(transform.normalization(transform(frames)), expected)


def test_normalization_on_the_device_is_torchvisions_to_the_last_bit() -> None:
    every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).expand(2, 3, 4, 16, 16)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    frames = every_value.transpose(1, 2)
    scaled = functional.to_dtype(frames, torch.float32, scale=True)
    expected = functional.normalize(scaled, list(mean), list(std)).transpose(1, 2)
    transform = SALTTransform(32, mean=mean, std=std)
    normalized = transform.normalization(every_value)
    assert torch.equal(normalized, expected)
    assert transform.normalization(normalized) is normalized
    torch.testing.assert_close(
        transform.denormalize(normalized), transform.denormalize(every_value)
    )


def test_normalization_by_hand() -> None:
    frames = _frames(frames=2, height=32, width=32)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)
    expected = (frames.permute(1, 0, 2, 3) / 255 - mean) / std
    transform = SALTEvalTransform(32)
    torch.testing.assert_close(transform(frames), expected)
    restored = transform.denormalize(torch.stack([transform(frames)] * 2))
    torch.testing.assert_close(restored[1], frames.permute(1, 0, 2, 3) / 255)


def test_evaluation_resizes_the_short_side_and_crops_the_centre() -> None:
    frames = _frames(frames=1, height=40, width=60)
    resized = functional.resize(frames, [20, 30], antialias=True)
    expected = resized[0, :, :, 5:25] / 255
    transform = SALTEvalTransform(20)
    torch.testing.assert_close(transform.denormalize(transform(frames))[:, 0], expected)


@pytest.mark.parametrize(
    "bad",
    [{"size": 0}, {"scale": (0.0, 1.0)}, {"scale": (1.0, 0.5)}, {"ratio": (2, 1)}, {"hflip": 1.5}],
)
def test_bad_values(bad: dict) -> None:
    with pytest.raises(ConfigError, match="expected"):
        SALTTransform(**{"size": 32, **bad})
