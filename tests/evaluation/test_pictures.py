from __future__ import annotations

import torch

from salt_plugin.evaluation.pictures import pca_of_clip, pca_rgb
from salt_plugin.models import EncoderShape, VideoEncoder

GRID = (4, 5, 6)


def _tokens() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(4 * 5 * 6, 16, dtype=torch.float64) * torch.linspace(3, 0.1, 16)


def test_a_colour_follows_what_varies_most() -> None:
    ramp = torch.linspace(0, 1, 120, dtype=torch.float64)
    tokens = torch.zeros(120, 8, dtype=torch.float64)
    tokens[:, 2], tokens[:, 5] = 10 * ramp**2, torch.sin(40 * ramp)
    red, green, blue = pca_rgb(tokens, GRID).reshape(120, 3).T
    assert torch.corrcoef(torch.stack([red.double(), ramp**2]))[0, 1] > 0.99
    assert torch.corrcoef(torch.stack([green.double(), torch.sin(40 * ramp)]))[0, 1].abs() > 0.99
    assert torch.equal(blue, torch.full((120,), 0.5))


def test_shift_scale_and_rotation_of_the_features_change_no_colour() -> None:
    tokens = _tokens()
    picture = pca_rgb(tokens, GRID)
    assert picture.shape == (4, 5, 6, 3)
    assert picture.dtype == torch.float32
    assert picture.amin() == 0
    assert picture.amax() == 1
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))
    for same in (tokens + 5, 0.01 * tokens, -tokens @ rotation):
        changed = pca_rgb(same, GRID)
        # The sign is a choice on the tokens; turning all features round turns the choice round too.
        assert torch.allclose(changed, picture, atol=1e-5)


def test_tokens_that_are_all_the_same_are_grey() -> None:
    assert torch.equal(pca_rgb(torch.ones(120, 8), GRID), torch.full((4, 5, 6, 3), 0.5))


def test_a_clip_is_coloured_on_the_encoder_s_grid() -> None:
    torch.manual_seed(0)
    shape = EncoderShape("small", embed_dim=24, depth=1, num_heads=2, patch_size=4)
    encoder, clip = VideoEncoder(shape).eval(), torch.randn(3, 4, 8, 12)
    picture = pca_of_clip(encoder, clip)
    assert picture.shape == (2, 2, 3, 3)
    assert torch.equal(picture, pca_rgb(encoder(clip[None])[0], (2, 2, 3)))
