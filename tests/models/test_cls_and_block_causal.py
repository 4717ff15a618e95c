"""`[cls]` and block-causal attention: what reads what, and what files and probes make of it."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_vit import block, layer_norm, place_of
from torch import Tensor

from salt_plugin import load_encoder
from salt_plugin.checkpoints import export_hf, read_card, save_encoder
from salt_plugin.errors import CheckpointError
from salt_plugin.models import EncoderShape, FrozenTeacher, VideoEncoder
from salt_plugin.models.block_causal import block_causal_mask

PLAIN = EncoderShape("small", embed_dim=32, depth=2, num_heads=2, patch_size=4, tubelet_size=1)
BOTH = replace(PLAIN, cls_token=True, block_causal=True)
GRID = (3, 2, 4)
FRAME = 8
SHAPES = [
    replace(PLAIN, cls_token=cls_token, block_causal=block_causal)
    for cls_token, block_causal in itertools.product((False, True), repeat=2)
]


def _encoder(shape: EncoderShape) -> VideoEncoder:
    torch.manual_seed(0)
    encoder = VideoEncoder(shape).double().eval()
    # Weights of 0.02 would leave every block close to the identity, and prove little.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def _clips() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 3, 8, 16, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_encoder_matches_plain_blocks(shape: EncoderShape) -> None:
    encoder, clips = _encoder(shape), _clips()
    state = dict(encoder.state_dict())
    kept = torch.tensor([[20, 3, 7, 11, 0], [5, 23, 1, 2, 13]])
    first = int(shape.cls_token)
    with torch.no_grad():
        tokens = encoder(clips, kept)
        assert tokens.shape == (2, first + 5, 32)
        embedded = encoder.patch_embed.proj(clips).flatten(2).transpose(1, 2)
        for b in range(2):
            places = [place_of(i, GRID) for i in kept[b].tolist()]
            frames = [place[0] for place in places]
            x = embedded[b, kept[b]]
            if shape.cls_token:
                x = torch.cat((state["cls_token"][0], x))
                places, frames = [(0, 0, 0), *places], [99, *frames]
            reads = None
            if shape.block_causal:
                reads = [[j for j, of in enumerate(frames) if of <= own] for own in frames]
            for depth in range(2):
                x = block(x, places, state, f"blocks.{depth}", 2, reads)
            expected = layer_norm(x, state, "norm")
            torch.testing.assert_close(tokens[b], expected, rtol=1e-5, atol=1e-5)
        patches, grid = encoder.patchify(clips), encoder.grid(clips)
        torch.testing.assert_close(encoder.forward_patches(patches, grid, kept), tokens[:, first:])
        if shape.cls_token:
            torch.testing.assert_close(encoder.forward_cls(patches, grid, kept), tokens[:, 0])


@pytest.mark.parametrize("cls_token", [False, True])
def test_a_later_frame_does_not_change_earlier_tokens(cls_token: bool) -> None:
    encoder, clips = _encoder(replace(BOTH, cls_token=cls_token)), _clips()
    patches, grid = encoder.patchify(clips), encoder.grid(clips)
    kept = torch.stack([torch.randperm(24)[:13] for _ in range(2)])
    with torch.no_grad():
        for frame in (1, 2):
            changed = clips.clone()
            changed[:, :, frame] += torch.randn_like(changed[:, :, frame])
            others = encoder.patchify(changed)
            for indices in (None, kept):
                before = encoder.forward_patches(patches, grid, indices)
                after = encoder.forward_patches(others, grid, indices)
                places = torch.arange(24).expand(2, -1) if indices is None else indices
                earlier = places // FRAME < frame
                assert torch.equal(before[earlier], after[earlier])
                assert (before - after).abs().amax(-1)[~earlier].min() > 1e-3


def test_a_token_reads_all_of_its_own_frame_and_of_earlier_ones_and_only_cls_reads_all() -> None:
    encoder = _encoder(BOTH)
    patches = encoder.patchify(_clips()[:1]).requires_grad_(True)
    tokens = encoder._all_tokens(patches, GRID, None)[0]
    for query in range(25):
        (gradient,) = torch.autograd.grad(tokens[query].sum(), patches, retain_graph=True)
        read = set(gradient[0].abs().sum(-1).nonzero().flatten().tolist())
        frame = 2 if query == 0 else (query - 1) // FRAME
        assert read == set(range((frame + 1) * FRAME))
    assert encoder.cls_token is not None
    for query in range(25):
        (gradient,) = torch.autograd.grad(
            tokens[query].sum(), encoder.cls_token, retain_graph=True, allow_unused=True
        )
        assert bool(gradient.abs().sum() > 0) == (query == 0)


def test_clips_with_the_same_tokens_share_one_mask() -> None:
    every = torch.arange(24).expand(5, -1)
    shared = block_causal_mask(every, GRID, cls_token=False)
    assert shared.shape == (1, 1, 24, 24)
    own = block_causal_mask(every.contiguous(), GRID, cls_token=False)
    assert torch.equal(shared.expand(5, -1, -1, -1), own)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_recomputing_and_half_precision_change_nothing_else(shape: EncoderShape) -> None:
    encoder, clips = _encoder(shape).float(), _clips().float()
    before = encoder(clips).square().sum()
    gradients = torch.autograd.grad(before, list(encoder.parameters()))
    encoder.blocks.activation_checkpointing = True
    again = torch.autograd.grad(encoder(clips).square().sum(), list(encoder.parameters()))
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(clips)
    torch.testing.assert_close(half.float(), encoder(clips), rtol=0.1, atol=0.2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_compiled_blocks_compute_the_same() -> None:
    encoder, clips = _encoder(BOTH).float(), _clips().float()
    before = encoder(clips)
    encoder.blocks.compile_blocks()
    torch.testing.assert_close(encoder(clips), before, rtol=1e-4, atol=1e-4)
    kept = torch.tensor([[20, 3, 7], [5, 23, 1]])
    assert encoder(clips, kept).shape == (2, 4, 32)


def test_an_encoder_without_options_has_the_card_and_the_names_of_before(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    encoder = VideoEncoder(PLAIN)
    save_encoder(encoder, file, {})
    assert {"cls_token", "block_causal"}.isdisjoint(read_card(file)["shape"])
    assert "cls_token" not in encoder.state_dict()
    assert load_encoder(file).shape == PLAIN


def test_files_keep_the_options_and_export_refuses_them(tmp_path: Path) -> None:
    for shape in SHAPES[1:]:
        file = tmp_path / f"{shape.cls_token}{shape.block_causal}.safetensors"
        encoder, clips = _encoder(shape).float(), _clips().float()
        save_encoder(encoder, file, {})
        loaded = load_encoder(file)
        assert loaded.shape == shape
        assert torch.equal(loaded(clips), encoder(clips))
        with pytest.raises(CheckpointError, match=r"a \[cls\] token or block-causal attention, wh"):
            export_hf(file, tmp_path / "hf")
        card = json.loads(file.with_suffix(".json").read_text())
        for option in ("cls_token", "block_causal"):
            card["shape"].pop(option, None)
        file.with_suffix(".json").write_text(json.dumps(card))
        if shape.cls_token:
            with pytest.raises(CheckpointError, match="cls_token"):
                load_encoder(file)


def test_as_a_teacher_it_gives_the_tokens_of_places_alone() -> None:
    teacher = FrozenTeacher(_encoder(BOTH))
    clips = _clips()
    latents = teacher(teacher.encoder.patchify(clips), GRID)
    assert torch.equal(latents, teacher.encoder(clips)[:, 1:])
