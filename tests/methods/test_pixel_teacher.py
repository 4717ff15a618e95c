from __future__ import annotations

import pytest
import torch
from drawn import draw

from salt_plugin.batch import Batch
from salt_plugin.losses import PixelLoss
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.methods import PixelTeacher, Recipe
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder

GRID = (2, 6, 6)
SHAPE = EncoderShape("small", 24, 1, 2, patch_size=4)


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(3, 3, 4, 24, 24, generator=generator) * 0.5 + 0.2
    return Batch(clips, torch.full((3,), -1), draw(MultiBlockMasks(), 3, GRID))


def _method(normalize: bool = True) -> PixelTeacher:
    torch.manual_seed(0)
    method = PixelTeacher(
        VideoEncoder(SHAPE),
        Predictor(24, SHAPE.patch_dim, PredictorShape(dim=24, depth=2, num_heads=2)),
        PixelLoss(normalize),
        Recipe(total_steps=10, warmup_steps=1, lr=1e-2, clip_grad=1.0),
    )
    for token in method.decoder.mask_tokens:
        torch.nn.init.normal_(token)
    return method


def _tubelet(clip: torch.Tensor, index: int) -> torch.Tensor:
    """Pixels [C, 2, 4, 4] of one token, cut out of [C, T, H, W] by its place."""
    t, h, w = index // 36, index % 36 // 6, index % 6
    return clip[:, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4]


@pytest.mark.parametrize("normalize", [True, False])
def test_loss_is_the_plain_restatement(normalize: bool) -> None:
    method, batch = _method(normalize), _batch()
    losses = []
    for number, mask in enumerate(batch.masks):
        squares = []
        for b in range(3):
            context, target = mask.context[b : b + 1], mask.target[b : b + 1]
            seen = method.encoder(batch.clips[b : b + 1], context)
            predicted = method.decoder(seen, context, target, GRID, number)[0]
            for m, index in enumerate(target[0].tolist()):
                pixels = _tubelet(batch.clips[b], index).flatten(1)
                if normalize:
                    mean, std = pixels.mean(1, keepdim=True), pixels.std(1, keepdim=True)
                    pixels = (pixels - mean) / (std + 1e-6)
                squares.append((predicted[m] - pixels.flatten()).square())
        losses.append(torch.stack(squares).mean())
    loss = method(batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, sum(losses) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mask_index", [0, 1])
def test_reconstruction_keeps_visible_pixels_exactly(normalize: bool, mask_index: int) -> None:
    method, batch = _method(normalize), _batch()
    visible, filled = method.reconstruct(batch, mask_index)
    assert visible.shape == filled.shape == batch.clips.shape
    mask = batch.masks[mask_index]
    for b in range(3):
        context, target = set(mask.context[b].tolist()), set(mask.target[b].tolist())
        for index in range(72):
            original = _tubelet(batch.clips[b], index)
            if index in context:
                assert torch.equal(_tubelet(visible[b], index), original)
                assert torch.equal(_tubelet(filled[b], index), original)
            else:
                assert not _tubelet(visible[b], index).any()
                assert _tubelet(filled[b], index).any() == (index in target)


def test_reconstruction_puts_mean_and_deviation_back() -> None:
    """A decoder that predicts the normalised target exactly gives the clip back."""
    method, batch = _method(), _batch()
    mask = batch.masks[0]
    wanted = [
        torch.stack([_tubelet(batch.clips[b], index).flatten(1) for index in mask.target[b]])
        for b in range(3)
    ]
    pixels = torch.stack(wanted)
    standard = (pixels - pixels.mean(-1, keepdim=True)) / pixels.std(-1, keepdim=True)
    method.decoder.forward_sets = lambda *_: [standard.flatten(2)]
    filled = method.reconstruct(batch, 0).filled
    for b in range(3):
        for index in [*mask.context[b].tolist(), *mask.target[b].tolist()]:
            torch.testing.assert_close(
                _tubelet(filled[b], index), _tubelet(batch.clips[b], index), rtol=1e-5, atol=1e-5
            )


def test_reconstruction_leaves_no_graph_and_no_trace() -> None:
    method, batch = _method(), _batch()
    before, clips = method(batch), batch.clips.clone()
    assert not method.reconstruct(batch).filled.requires_grad
    assert torch.equal(batch.clips, clips)
    assert torch.equal(method(batch), before)


def test_learns_a_pattern_that_all_tubelets_share() -> None:
    method, batch = _method(), _batch()
    batch = batch._replace(clips=_tubelet(batch.clips[0], 0).repeat(3, 1, 2, 6, 6))
    optimizer = method.configure_optimizers()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = method(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
