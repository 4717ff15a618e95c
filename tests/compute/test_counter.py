from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from counting import indices, torch_flops
from torch import Tensor, nn

from salt_plugin.batch import MaskSet
from salt_plugin.compute.cost import encoder_forward, predictor_forward
from salt_plugin.compute.counter import count_flops
from salt_plugin.models import (
    ENCODER_SIZES,
    EncoderShape,
    Predictor,
    PredictorShape,
    VideoEncoder,
)
from salt_plugin.shapes import Tokens

# What multi-block masks leave of 16 frames at 224 pixels on a device with 24 clips.
CLIP = (2, 3, 16, 224, 224)
GRID = (8, 14, 14)
MASKS = [Tokens(360, 1064), Tokens(112, 1360)]
PREDICTOR = PredictorShape(depth=2)
LATENTS = 1024


def _shape(name: str) -> EncoderShape:
    """All sizes but one have two blocks: all blocks are alike, and tracing them takes long."""
    shape = EncoderShape.named(name)
    return shape if name == "vit_tiny" else replace(shape, depth=2)


class _Trained(nn.Module):
    """What a step trains: encoder and predictor on both mask sets in one pass."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.encoder = VideoEncoder(shape)
        self.predictor = Predictor(shape.embed_dim, LATENTS, PREDICTOR)

    def forward(self, clip_bcthw: Tensor, context: list[Tensor], target: list[Tensor]) -> Tensor:
        patches_bnp = self.encoder.patchify(clip_bcthw)
        masks = [MaskSet(*pair, i) for i, pair in enumerate(zip(context, target, strict=True))]
        encoded = self.encoder.forward_sets(patches_bnp, GRID, masks)
        predicted = self.predictor.forward_sets(encoded, masks, GRID)
        return torch.cat([one.flatten() for one in predicted])


def _places(count: int) -> Tensor:
    return torch.zeros(2, count, dtype=torch.int64)


@pytest.mark.parametrize("name", ENCODER_SIZES)
def test_closed_form_of_every_size_with_masks_is_what_both_counters_say(name: str) -> None:
    """Real shapes; on the meta device they need neither memory nor time."""
    shape = _shape(name)
    with torch.device("meta"):
        module, clip = _Trained(shape), torch.zeros(CLIP)
        inputs = (clip, *([_places(m[i]) for m in MASKS] for i in (0, 1)))
        traced, measured = count_flops(module, inputs), torch_flops(lambda: module(*inputs))
    closed = 2 * sum(
        encoder_forward(shape, m.context)
        + predictor_forward(PREDICTOR, shape.embed_dim, LATENTS, m)
        for m in MASKS
    )
    assert set(traced) == {"linear", "scaled_dot_product_attention"}
    assert sum(traced.values()) == pytest.approx(closed, rel=1e-3)
    assert measured == pytest.approx(closed, rel=1e-3)


@pytest.mark.parametrize("name", ENCODER_SIZES)
def test_closed_form_of_every_size_on_whole_clips_as_a_teacher_sees_them(name: str) -> None:
    shape = _shape(name)
    with torch.device("meta"):
        module, clip = VideoEncoder(shape), torch.zeros(CLIP)
        traced, measured = count_flops(module, clip), torch_flops(lambda: module(clip))
    closed = 2 * encoder_forward(shape, 1568)
    assert sum(traced.values()) == pytest.approx(closed, rel=1e-3)
    assert measured == pytest.approx(closed, rel=1e-3)


@pytest.mark.parametrize("name", ENCODER_SIZES)
def test_backward_counts_twice_forward_for_every_size(name: str) -> None:
    """Pixels need no gradient: of two products the embedding's backward makes one only."""
    shape = _shape(name)
    with torch.device("meta"):
        module, clip = _Trained(shape), torch.zeros(CLIP)
        inputs = (clip, *([_places(m[i]) for m in MASKS] for i in (0, 1)))
        measured = torch_flops(lambda: module(*inputs).sum().backward())
    per_clip = sum(
        encoder_forward(shape, m.context)
        + predictor_forward(PREDICTOR, shape.embed_dim, LATENTS, m)
        for m in MASKS
    )
    embedding = 2 * sum(m.context for m in MASKS) * shape.patch_dim * shape.embed_dim
    assert measured == pytest.approx(2 * (3 * per_clip - embedding), rel=1e-3)


def test_attention_is_counted_by_either_route() -> None:
    """Fused, and written out as bfloat16 on CPUs is."""
    shape = EncoderShape("small", 48, 2, 3, patch_size=8)
    encoder, clip = VideoEncoder(shape), torch.randn(2, 3, 8, 32, 32)
    kept = indices(2, 40, 64)
    closed = 2 * encoder_forward(shape, 40)
    fused = count_flops(encoder, (clip, kept))
    with torch.autocast("cpu", torch.bfloat16):
        written_out = count_flops(encoder, (clip, kept))
    assert fused["scaled_dot_product_attention"] == written_out["matmul"]
    assert sum(fused.values()) == sum(written_out.values()) == closed


def test_values_of_attention_may_have_a_width_of_their_own() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, k, v)

    inputs = (torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8), torch.zeros(2, 3, 7, 10))
    assert count_flops(Attention(), inputs) == {
        "scaled_dot_product_attention": 2 * 2 * 3 * 5 * 7 * (8 + 10)
    }


def test_convolutions_count_and_normalisation_does_not() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 2), nn.BatchNorm2d(8), nn.ReLU()).eval()
    assert count_flops(module, torch.zeros(1, 3, 4, 4)) == {"conv": 2 * 3 * 3 * 8 * 3 * 2 * 2}


def test_the_package_counts_in_closed_form_without_fvcore() -> None:
    code = "import sys, salt_plugin.compute;assert not {'torch', 'fvcore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
