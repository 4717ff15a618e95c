from __future__ import annotations

import pytest
import torch

from salt_plugin.evaluation import FrozenEncoder, ProbeReport, ProtocolResult
from salt_plugin.evaluation.image_frames import ImageFrames
from salt_plugin.evaluation.pictures import attention_of_clip, confusion, pca_rgb
from salt_plugin.evaluation.results import Interval
from salt_plugin.models.attentive import AttentiveProbe

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


def test_attention_lies_on_the_grid_in_the_order_of_the_tokens() -> None:
    torch.manual_seed(0)
    probe = AttentiveProbe(16, num_classes=3, num_heads=2, depth=1)
    with torch.no_grad():
        probe.pooler.query_tokens.mul_(1000)  # so that it prefers some
    tokens = _tokens().float()
    attention = attention_of_clip(probe, tokens, GRID)
    assert attention.shape == GRID
    assert attention.sum().item() == pytest.approx(1, abs=1e-5)
    # Without self-attention, tokens that change places take their weights along.
    turned = attention_of_clip(probe, tokens.flip(0), GRID)
    assert torch.allclose(turned.flatten().flip(0), attention.flatten(), atol=1e-6)
    assert attention.max() > 1.2 * attention.min()


def test_rows_of_the_confusion_are_true_classes() -> None:
    predicted = torch.tensor([0, 2, 2, 1])
    result = ProtocolResult(0.5, 1 / 4, 4, Interval(0, 1), predicted)
    labels, means = torch.tensor([0, 0, 2, 2]), torch.zeros(4, 1, 8)
    report = ProbeReport("any", list("abcd"), labels, {"knn": result}, {}, None, means)
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert confusion(report, "knn").tolist() == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t"])
def test_tokens_of_an_image_model_keep_the_grid_of_its_frames(name: str) -> None:
    frozen = FrozenEncoder(name, ImageFrames(name, size=64))
    side = 4 if name.startswith("vit") else 2
    assert frozen.grid(8, frozen.tokens(8, 64)) == (4, side, side)
    assert frozen.grid(8, 4 * 6) == (4, 1, 6)
