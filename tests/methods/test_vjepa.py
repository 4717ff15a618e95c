from __future__ import annotations

import copy

import pytest
import torch
from drawn import draw

from salt_plugin.batch import Batch
from salt_plugin.losses import LatentLoss
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.methods import VJEPA, Recipe
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder

GRID = (2, 6, 6)
SHAPE = EncoderShape("encoder", 24, 1, 2, patch_size=4)


def _batch(clips: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    masks = draw(MultiBlockMasks(), clips, GRID, seed)
    pixels = torch.randn(clips, 3, 4, 24, 24, generator=generator)
    return Batch(pixels, torch.full((clips,), -1), masks, seed)


def _method(
    momentum: tuple[float, float] = (0.998, 1.0), total_steps: int = 10, drop_path: float = 0.0
) -> VJEPA:
    torch.manual_seed(0)
    predictor = Predictor(24, 24, PredictorShape(dim=24, depth=1, num_heads=2))
    recipe = Recipe(total_steps=total_steps, warmup_steps=1, lr=1e-2, clip_grad=1.0)
    return VJEPA(VideoEncoder(SHAPE, drop_path), predictor, LatentLoss(), recipe, momentum)


def test_momentum_goes_linearly_from_the_first_step_to_the_end() -> None:
    method = _method((0.998, 1.0), total_steps=4)
    found = [method.momentum_at(step) for step in range(5)]
    assert found == pytest.approx([0.998, 0.9985, 0.999, 0.9995, 1.0], abs=1e-15)
    assert found[0] == 0.998
    # A position need not be whole: under a budget it is a share of the steps.
    assert method.momentum_at(2.5) == pytest.approx(0.99925, abs=1e-15)
    method.recipe = Recipe(90_000, stretch=1.25)  # V-JEPA 1's `ipe_scale`
    assert method.momentum_at(90_000) == pytest.approx(0.9996)
    constant = _method((0.99925, 0.99925), total_steps=7)
    assert {constant.momentum_at(step) for step in range(8)} == {0.99925}


def test_the_target_starts_as_the_encoder_and_moves_by_its_share() -> None:
    method = _method((0.9, 0.9))
    for target, encoder in zip(
        method.teacher.parameters(), method.student.parameters(), strict=True
    ):
        assert torch.equal(target, encoder)
        assert target is not encoder
    before = copy.deepcopy(method.teacher.state_dict())
    with torch.no_grad():
        for value in method.student.parameters():
            value.add_(torch.randn_like(value))
    encoder = copy.deepcopy(method.student.state_dict())
    method.update_ema(0)
    for name, value in method.teacher.state_dict().items():
        torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * encoder[name])
    for name, value in method.student.state_dict().items():
        assert torch.equal(value, encoder[name])


def test_momentum_one_keeps_the_target_and_zero_copies_the_encoder() -> None:
    for momentum, same in ((1.0, False), (0.0, True)):
        method = _method((momentum, momentum))
        start = copy.deepcopy(method.teacher.norm.weight)
        with torch.no_grad():
            method.student.norm.weight.add_(1.0)
        method.update_ema(0)
        assert torch.equal(method.teacher.norm.weight, method.student.norm.weight) is same
        assert torch.equal(method.teacher.norm.weight, start) is not same


def test_nothing_trains_the_target() -> None:
    method = _method()
    optimizer = method.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for part in (method.student, method.predictor) for p in part.parameters()}
    method(_batch()).backward()
    for value in method.teacher.parameters():
        assert not value.requires_grad
        assert value.grad is None
    assert all(value.grad is not None for value in method.student.parameters())


def test_the_target_stays_in_evaluation_mode_and_sees_whole_clips() -> None:
    method = _method(drop_path=0.9).train()
    assert method.student.training
    assert not any(module.training for module in method.teacher.modules())
    batch = _batch()
    method(batch)
    assert method.watched_kd is not None
    assert method.watched_kd.shape == (3 * 72, 24)  # all of so few
    assert not method.watched_kd.requires_grad
    torch.testing.assert_close(method.watched_kd, method.teacher(batch.clips).flatten(0, 1))


def test_the_target_is_kept_moved_saved_and_executed_with_the_rest() -> None:
    method = _method()
    assert method.result is method.teacher
    names = {name for name in method.state_dict() if name.startswith("teacher.")}
    assert names == {f"teacher.{name}" for name in method.student.state_dict()}
    assert method.to(torch.float64).teacher.norm.weight.dtype == torch.float64
    assert method.teacher.blocks in method.block_stacks()


@pytest.mark.parametrize(("clips", "watched"), [(3, 216), (14, 1008), (15, 540), (40, 960)])
def test_an_even_choice_of_the_targets_is_watched(clips: int, watched: int) -> None:
    method, batch = _method(), _batch(clips)
    assert method.watched_kd is None
    method(batch)
    latents_td = method.teacher(batch.clips).flatten(0, 1)
    assert method.watched_kd is not None
    assert method.watched_kd.shape == (watched, 24)
    stride = -(-len(latents_td) // 1024)
    torch.testing.assert_close(method.watched_kd, latents_td[::stride])
