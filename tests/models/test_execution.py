"""Ways to execute blocks change how fast they are, not what they compute."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import pytest
import torch
from torch import Tensor

from salt_plugin.batch import MaskSet
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder

SHAPE = EncoderShape("small", embed_dim=32, depth=3, num_heads=2, patch_size=4)
GRID = (2, 4, 6)
# Mask sets of clips: which, from the first clip to before the last, context and target lengths.
SETS = [(0, 0, 3, 5, 9), (1, 0, 3, 11, 20)]
GROUPS = [(0, 0, 2, 5, 9), (1, 0, 2, 11, 20), (0, 2, 3, 7, 30), (1, 2, 3, 6, 4)]


Sets = list[tuple[int, int, int, int, int]]


def _models(drop_path: float = 0.0, depth: int = 3) -> tuple[VideoEncoder, Predictor]:
    torch.manual_seed(0)
    shape = dataclasses.replace(SHAPE, depth=depth)
    return VideoEncoder(shape, drop_path, init_std=0.1), Predictor(
        32, 16, PredictorShape(dim=24, depth=min(2, depth), num_heads=2), init_std=0.1
    )


def _masks(sets: Sets) -> list[MaskSet]:
    generator = torch.Generator().manual_seed(2)
    masks = []
    for number, first, last, K, M in sets:
        order = torch.rand(last - first, 48, generator=generator).argsort(1)
        masks.append(MaskSet(order[:, :K], order[:, K : K + M], number, first))
    return masks


def _losses_and_gradients(
    encoder: VideoEncoder, head: Predictor, sets: Sets, *, packed: bool = True
) -> list[Tensor]:
    clips = torch.randn(3, 3, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    patches = encoder.patchify(clips.to(head.mask_tokens[0].dtype))
    masks = _masks(sets)
    if packed:
        encoded = encoder.forward_sets(patches, GRID, masks)
        predicted = head.forward_sets(encoded, masks, GRID)
    else:
        predicted = [
            head(
                encoder.forward_patches(patches[mask.clips], GRID, mask.context),
                mask.context,
                mask.target,
                GRID,
                mask.number,
            )
            for mask in masks
        ]
    losses = [one.square().mean() for one in predicted]
    parameters = [*encoder.parameters(), *head.parameters()]
    # A mask set that is left out leaves its mask token without a gradient.
    gradients = torch.autograd.grad(
        sum(losses), parameters, allow_unused=True, materialize_grads=True
    )
    return [*losses, *gradients]


def _close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sets", [SETS, SETS[::-1], GROUPS, SETS[1:]])
def test_one_pass_over_all_mask_sets_is_a_pass_for_each(sets: Sets) -> None:
    models = _models()
    _close(
        _losses_and_gradients(*models, sets),
        _losses_and_gradients(*models, sets, packed=False),
    )


def test_clips_of_one_set_do_not_see_those_of_another() -> None:
    encoder, _ = _models()
    patches = torch.randn(3, 48, SHAPE.patch_dim)
    masks = _masks(SETS)
    before = encoder.forward_sets(patches, GRID, masks)
    patches[0] += 1
    after = encoder.forward_sets(patches, GRID, masks)
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one[1:], two[1:])
        assert not torch.equal(one[0], two[0])


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_activation_checkpointing_changes_no_bit(drop_path: float) -> None:
    plain, lean = _models(drop_path), _models(drop_path)
    lean[0].blocks.activation_checkpointing = True
    lean[1].predictor_blocks.activation_checkpointing = True
    torch.manual_seed(3)
    expected = _losses_and_gradients(*plain, SETS)
    torch.manual_seed(3)
    found = _losses_and_gradients(*lean, SETS)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    encoder = VideoEncoder(EncoderShape("one", 24, 1, 2, patch_size=4))
    block = encoder.blocks[0]
    patches = torch.randn(200, 48, encoder.shape.patch_dim)
    places = [torch.arange(K).expand(200, -1) for K in (3, 7)]
    masks = [MaskSet(context, context) for context in places]
    with torch.no_grad():
        full = encoder.eval().forward_sets(patches, GRID, masks)
        block.drop_path = 0.25
        encoder.train()
        torch.manual_seed(1)
        dropped = encoder.forward_sets(patches, GRID, masks)
    for one, two in zip(full, dropped, strict=True):
        changed = (one - two).abs().amax(-1) > 1e-6
        assert torch.equal(changed.all(1), changed.any(1))  # a clip is dropped whole or not at all
    rates = []
    for _ in range(50):
        factor = block._kept(torch.zeros(1), ((200, 3), (200, 7)))
        assert torch.isin(factor, torch.tensor([0.0, 1 / 0.75])).all()
        rates.append((factor == 0).float().mean().item())
    assert sum(rates) / len(rates) == pytest.approx(0.25, abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_compiled_blocks_compute_the_same_at_every_length() -> None:
    # In float64: how far float32 rounds apart depends on the instructions of the CPU.
    plain = [model.double() for model in _models(depth=1)]
    compiled = copy.deepcopy(plain)
    compiled[0].blocks.compile_blocks()
    compiled[1].predictor_blocks.compile_blocks()
    for sets in (SETS, [(0, 0, 3, 8, 3), (1, 0, 3, 2, 30)], [(0, 0, 3, 7, 19)], GROUPS):
        _close(_losses_and_gradients(*compiled, sets), _losses_and_gradients(*plain, sets))


def _bfloat16() -> tuple[VideoEncoder, Tensor, Tensor]:
    encoder = _models()[0].bfloat16().eval()
    clips = torch.randn(2, 3, 4, 16, 24, generator=torch.Generator().manual_seed(1)).bfloat16()
    return encoder, clips, encoder(clips)


@pytest.mark.parametrize("grad", [True, False])
def test_an_encoder_in_bfloat16_is_exported(grad: bool) -> None:
    encoder, clips, expected = _bfloat16()
    with torch.set_grad_enabled(grad):
        exported = torch.export.export(encoder, (clips,))
    torch.testing.assert_close(exported.module()(clips), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("autocast", [True, False])
def test_an_encoder_in_bfloat16_is_one_graph(autocast: bool) -> None:
    encoder, clips, expected = _bfloat16()
    if autocast:
        encoder, clips = encoder.float(), clips.float()
    torch.compiler.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = compiled(clips)
    torch.testing.assert_close(found.bfloat16(), expected, rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_an_encoder_in_bfloat16_is_compiled_in_full() -> None:
    encoder, clips, expected = _bfloat16()
    torch.compiler.reset()
    found = torch.compile(encoder, fullgraph=True)(clips)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    found.float().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
