from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from plain_vit import block, layer_norm, place_of
from torch._subclasses.fake_tensor import FakeTensorMode

from salt_plugin.errors import ConfigError, ShapeError
from salt_plugin.models import EncoderShape, VideoEncoder

SHAPE = EncoderShape("small", embed_dim=32, depth=2, num_heads=2, patch_size=4)
GRID = (2, 3, 4)


@pytest.fixture
def encoder() -> VideoEncoder:
    torch.manual_seed(0)
    encoder = VideoEncoder(SHAPE).double()
    # Weights of 0.02 would leave every block close to the identity, and prove little.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


@pytest.fixture
def clip() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 4, 12, 16, generator=generator, dtype=torch.float64)


@pytest.fixture
def kept() -> torch.Tensor:
    """Tokens of each clip, out of order."""
    return torch.tensor([[20, 3, 7, 11, 0], [5, 23, 1, 2, 13]])


def test_gathering_before_the_embedding_is_the_convolution_then_gathering(
    encoder: VideoEncoder, clip: torch.Tensor, kept: torch.Tensor
) -> None:
    convolution = encoder.patch_embed.proj
    weight = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2), dtype=clip.dtype)

    def gradients(tokens: torch.Tensor) -> list[torch.Tensor]:
        sources = [clip, *convolution.parameters()]
        return list(torch.autograd.grad((tokens * weight).sum(), sources))

    clip.requires_grad_(True)
    patches = encoder.patchify(clip)
    early = encoder.patch_embed(torch.stack([patches[b, kept[b]] for b in range(2)]))
    everything = convolution(clip).flatten(2).transpose(1, 2)
    late = torch.stack([everything[b, kept[b]] for b in range(2)])

    torch.testing.assert_close(early, late, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(early), gradients(late), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_masked_pixels_get_no_gradient(
    encoder: VideoEncoder, clip: torch.Tensor, kept: torch.Tensor
) -> None:
    clip.requires_grad_(True)
    encoder(clip, kept).square().sum().backward()
    by_token = encoder.patchify(clip.grad).abs().sum(-1)
    for b in range(2):
        assert set(by_token[b].nonzero().flatten().tolist()) == set(kept[b].tolist())


def test_masked_encoder_matches_plain_blocks(
    encoder: VideoEncoder, clip: torch.Tensor, kept: torch.Tensor
) -> None:
    state = dict(encoder.state_dict())
    with torch.no_grad():
        tokens = encoder(clip, kept)
        embedded = encoder.patch_embed.proj(clip).flatten(2).transpose(1, 2)
        for b in range(2):
            places = [place_of(i, GRID) for i in kept[b].tolist()]
            x = embedded[b, kept[b]]
            for depth in range(2):
                x = block(x, places, state, f"blocks.{depth}", heads=2)
            expected = layer_norm(x, state, "norm")
            torch.testing.assert_close(tokens[b], expected, rtol=1e-5, atol=1e-5)


def test_without_indices_all_tokens_are_kept_in_order(
    encoder: VideoEncoder, clip: torch.Tensor
) -> None:
    everything = torch.arange(24).expand(2, -1)
    torch.testing.assert_close(encoder(clip), encoder(clip, everything))
    assert encoder(clip).shape == (2, 24, 32)


def test_output_follows_the_order_of_the_indices(
    encoder: VideoEncoder, clip: torch.Tensor, kept: torch.Tensor
) -> None:
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(encoder(clip, kept[:, order]), encoder(clip, kept)[:, order])


def test_clips_of_a_batch_do_not_mix(
    encoder: VideoEncoder, clip: torch.Tensor, kept: torch.Tensor
) -> None:
    together = encoder(clip, kept)
    for b in range(2):
        torch.testing.assert_close(encoder(clip[b : b + 1], kept[b : b + 1])[0], together[b])


def test_residual_branches_start_smaller_with_depth() -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(EncoderShape("wide", embed_dim=128, depth=4, num_heads=4))
    for depth, part in enumerate(encoder.blocks, start=1):
        for weight in (part.attn.proj.weight, part.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.03)
        assert part.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert part.mlp.fc1.bias.abs().max() == 0


def test_weights_start_as_wide_as_asked_for() -> None:
    torch.manual_seed(0)
    shape = EncoderShape("wide", embed_dim=128, depth=1, num_heads=4)
    encoder = VideoEncoder(shape, init_std=0.05)
    for weight in (encoder.patch_embed.proj.weight, encoder.blocks[0].mlp.fc1.weight):
        assert weight.std().item() == pytest.approx(0.05, rel=0.03)


def test_stochastic_depth_acts_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(SHAPE, drop_path=0.5)
    clip = torch.randn(1, 3, 4, 12, 16)
    assert any(not torch.equal(encoder(clip), encoder(clip)) for _ in range(20))
    encoder.eval()
    assert torch.equal(encoder(clip), encoder(clip))


@pytest.mark.parametrize(
    ("clip_shape", "key", "found", "fix"),
    [
        ((4, 12, 18), "method.clip.size=18", "method.model.patch_size=4", "use 16"),
        ((4, 11, 16), "method.clip.size=11", "method.model.patch_size=4", "use 12"),
        ((5, 12, 16), "method.clip.frames=5", "method.model.tubelet_size=2", "use 4"),
        ((1, 12, 16), "method.clip.frames=1", "method.model.tubelet_size=2", "use 2"),
        ((4, 2, 16), "method.clip.size=2", "method.model.patch_size=4", "use 4"),
    ],
)
def test_clip_that_the_tubelet_does_not_divide(
    clip_shape: tuple[int, int, int], key: str, found: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as error:
        SHAPE.grid(*clip_shape)
    for part in (key, found, fix):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((2, 4, 3, 12, 16), "found 4 channels, [2, 4, 3, 12, 16]; swap axes 1 and 2"),
        ((2, 1, 4, 12, 16), "found 1 channels, [2, 1, 4, 12, 16]"),
        ((3, 4, 12, 16), "found 4 axes, [3, 4, 12, 16]; add the batch"),
        ((2, 2, 3, 4, 12, 16), "found 6 axes"),
    ],
)
def test_clips_of_another_shape_are_refused(
    encoder: VideoEncoder, shape: tuple[int, ...], found: str
) -> None:
    for takes_clips in (encoder, encoder.patchify, encoder.grid):
        with pytest.raises(ShapeError, match=r"^expected clips \[B, 3, T, H, W\], ") as error:
            takes_clips(torch.zeros(shape, dtype=torch.float64))
        assert found in str(error.value)
        assert isinstance(error.value, ValueError)


def test_clips_of_0_to_255_are_warned_of_once(encoder: VideoEncoder, clip: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(clip)
    pixels = 255 * clip.abs().clamp(max=1)
    with pytest.warns(UserWarning, match=r"^clips look like 0 to 255 .*; expected floats") as told:
        encoder(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(pixels)
    assert [Path(one.filename) for one in told] == [Path(__file__)]
    with pytest.raises(ShapeError, match=r"expected clips of floats .*, found torch\.uint8"):
        encoder(torch.zeros(2, 3, 4, 12, 16, dtype=torch.uint8))


@pytest.mark.filterwarnings("error:clips look")
def test_values_are_not_looked_at_where_there_are_none(encoder: VideoEncoder) -> None:
    clip = torch.full((1, 3, 4, 12, 16), 255.0, dtype=torch.float64)
    exported = torch.export.export(encoder, (clip,))
    fake = FakeTensorMode()
    state = {name: fake.from_tensor(value.detach()) for name, value in encoder.named_parameters()}
    with fake:
        found = torch.func.functional_call(encoder, state, (fake.from_tensor(clip),))
    assert found.shape == encoder.to("meta")(clip.to("meta")).shape == (1, 24, 32)
    assert exported.module()(clip).shape == found.shape
