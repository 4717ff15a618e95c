from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.models import (
    ENCODER_SIZES,
    EncoderShape,
    Predictor,
    PredictorShape,
    VideoEncoder,
)

# Width, depth, heads and MLP width as the paper prints them, at 2x16x16 tubelets.
PRINTED = {
    "vit_nano": (128, 4, 4, 512, 990_080),
    "vit_tiny": (192, 12, 3, 768, 5_633_856),
    "vit_small": (384, 12, 6, 1536, 21_884_544),
    "vit_base": (768, 12, 12, 3072, 86_236_416),
    "vit_large": (1024, 24, 16, 4096, 303_885_312),
    "vit_huge": (1280, 32, 16, 5120, 631_648_000),
    "vit_giant": (1408, 40, 16, 6144, 1_012_173_952),
    "vit_gigantic": (1664, 48, 16, 8192, 1_843_923_840),
}


def _blocks(dim: int, depth: int, hidden: int) -> int:
    norm = 2 * dim
    attention = (dim * 3 * dim + 3 * dim) + (dim * dim + dim)
    mlp = (dim * hidden + hidden) + (hidden * dim + dim)
    return depth * (2 * norm + attention + mlp)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_table_is_complete() -> None:
    assert set(ENCODER_SIZES) == set(PRINTED)


@pytest.mark.parametrize("size", PRINTED)
def test_parameters_of_every_size(size: str) -> None:
    dim, depth, heads, hidden, literal = PRINTED[size]
    with torch.device("meta"):
        encoder = timm.create_model(f"salt_{size}")
    assert isinstance(encoder, VideoEncoder)
    assert len(encoder.blocks) == depth
    assert encoder.blocks[0].attn.num_heads == heads
    assert encoder.num_features == encoder.embed_dim == dim
    embedding = 3 * 2 * 16 * 16 * dim + dim
    assert embedding + _blocks(dim, depth, hidden) + 2 * dim == literal
    assert _count(encoder) == literal


def test_predictor_has_the_printed_22_million() -> None:
    with torch.device("meta"):
        predictor = Predictor(1024, 1024, PredictorShape())
    embed, project = 1024 * 384 + 384, 384 * 1024 + 1024
    formula = embed + 2 * 384 + _blocks(384, 12, 1536) + 2 * 384 + project
    assert _count(predictor) == formula == 22_082_944
    assert _count(predictor) / 1e6 == pytest.approx(22.0, abs=0.1)


@pytest.mark.parametrize("size", PRINTED)
def test_predictors_are_as_printed_from_vit_base_on_and_narrower_below(size: str) -> None:
    encoder = EncoderShape.named(size)
    expected = {"vit_nano": (64, 4, 2), "vit_tiny": (96, 12, 3), "vit_small": (192, 12, 6)}
    found = PredictorShape.beside(encoder, num_mask_tokens=2)
    assert found == PredictorShape(*expected.get(size, (384, 12, 12)))
    given = PredictorShape.beside(encoder, 3, dim=384, depth=12, num_heads=12)
    assert given == PredictorShape(384, 12, 12, num_mask_tokens=3)


def test_timm_knows_every_size_and_passes_options_on() -> None:
    assert set(timm.list_models("salt_*")) == {f"salt_{size}" for size in PRINTED}
    encoder = timm.create_model("salt_vit_nano", patch_size=8, tubelet_size=4, drop_path_rate=0.1)
    assert encoder.shape == EncoderShape("vit_nano", 128, 4, 4, patch_size=8, tubelet_size=4)
    assert encoder.forward_features(torch.zeros(1, 3, 8, 16, 24)).shape == (1, 2 * 2 * 3, 128)


def test_there_are_no_pretrained_weights() -> None:
    with pytest.raises(CheckpointError, match=r"salt_vit_nano.*no public weights.*load_encoder"):
        timm.create_model("salt_vit_nano", pretrained=True)


def test_unknown_size_names_the_key_and_all_sizes() -> None:
    with pytest.raises(ConfigError, match=r"method\.encoder=vit_larg: no such size") as error:
        EncoderShape.named("vit_larg", "method.encoder")
    for size in PRINTED:
        assert size in str(error.value)


@pytest.mark.parametrize(("dim", "heads"), [(32, 3), (20, 4), (39, 3)])
def test_heads_that_cannot_be_rotated(dim: int, heads: int) -> None:
    """Not whole, too narrow for three axes, and odd, so that channels cannot be paired."""
    message = rf"width {dim} over {heads} heads"
    with pytest.raises(ConfigError, match=rf"encoder odd: {message}"):
        EncoderShape("odd", dim, 1, heads)
    with pytest.raises(ConfigError, match=rf"method\.model\.predictor: {message}"):
        PredictorShape(dim=dim, num_heads=heads)
