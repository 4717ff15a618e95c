from __future__ import annotations

import copy

import torch
from drawn import draw
from torch import Tensor

from salt_plugin.batch import Batch
from salt_plugin.losses import LatentLoss
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.methods import SALT, Recipe
from salt_plugin.models import (
    EncoderShape,
    FrozenTeacher,
    Predictor,
    PredictorShape,
    VideoEncoder,
)

GRID = (2, 6, 6)
STUDENT = EncoderShape("student", 24, 1, 2, patch_size=4)
TEACHER = EncoderShape("teacher", 36, 2, 3, patch_size=4)
RECIPE = Recipe(total_steps=10, warmup_steps=1, lr=1e-2, clip_grad=1.0)


def _batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randn(3, 3, 4, 24, 24, generator=generator)
    return Batch(clips, torch.full((3,), -1), draw(MultiBlockMasks(), 3, GRID, seed), seed)


def _method(loss: LatentLoss | None = None) -> SALT:
    torch.manual_seed(0)
    method = SALT(
        VideoEncoder(STUDENT),
        Predictor(24, 36, PredictorShape(dim=24, depth=2, num_heads=2)),
        FrozenTeacher(VideoEncoder(TEACHER)),
        loss or LatentLoss(),
        RECIPE,
    )
    for token in method.predictor.mask_tokens:
        torch.nn.init.normal_(token)
    return method


def _plain_loss(method: SALT, batch: Batch) -> Tensor:
    """Clip by clip: the teacher's latents of the whole clip, standardised, against predictions."""
    losses = []
    for number, mask in enumerate(batch.masks):
        gaps = []
        for b in range(len(batch.clips)):
            clip = batch.clips[b : b + 1]
            context, target = mask.context[b : b + 1], mask.target[b : b + 1]
            with torch.no_grad():
                latents = method.teacher.encoder(clip)[0]
            wanted = torch.stack([latents[i] for i in target[0].tolist()])
            mean = wanted.mean(1, keepdim=True)
            variance = wanted.var(1, unbiased=False, keepdim=True)
            wanted = (wanted - mean) / (variance + 1e-5).sqrt()
            seen = method.student(clip, context)
            gaps.append((method.predictor(seen, context, target, GRID, number)[0] - wanted).abs())
        losses.append(torch.stack(gaps).mean())
    return sum(losses) / len(losses)


def test_loss_is_the_plain_restatement() -> None:
    method, batch = _method(), _batch()
    loss, expected = method(batch), _plain_loss(method, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)

    trained = [p for part in method.trained() for p in part.parameters()]
    ours = torch.autograd.grad(loss, trained)
    plain = torch.autograd.grad(expected, trained)
    for one, two in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


def test_sets_weigh_the_same_whatever_their_size() -> None:
    method, batch = _method(), _batch()
    short, long = batch.masks
    assert short.target.shape != long.target.shape
    alone = [method(batch._replace(masks=[mask])) for mask in (short, long)]
    torch.testing.assert_close(method(batch), (alone[0] + alone[1]) / 2)


def test_masked_places_reach_the_loss_through_the_teacher_only() -> None:
    method, batch = _method(), _batch()
    student_only = method.student(batch.clips, batch.masks[0].context)
    patches = method.student.patchify(batch.clips)
    changed = patches.clone()
    for b in range(3):
        changed[b, batch.masks[0].target[b]] += 1.0
    assert torch.equal(
        method.student.forward_patches(changed, GRID, batch.masks[0].context), student_only
    )
    assert not torch.equal(method.teacher(changed, GRID), method.teacher(patches, GRID))


def test_steps_train_student_and_predictor_but_never_the_teacher() -> None:
    method = _method()
    before = copy.deepcopy(dict(method.named_parameters()))
    optimizer = method.configure_optimizers()
    for step in range(3):
        method.train()
        optimizer.zero_grad()
        method(_batch(step)).backward()
        optimizer.step()

    assert method.teacher.is_intact()
    assert all(p.grad is None for p in method.teacher.encoder.parameters())
    after = dict(method.named_parameters())
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert still == {name for name in after if name.startswith("teacher.")}


def test_optimiser_and_state_hold_no_part_of_the_teacher() -> None:
    method = _method()
    optimizer = method.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in method.parameters() if p.requires_grad}
    assert not held & {id(p) for p in method.teacher.parameters()}
    assert not any("teacher" in name for name in method.state_dict())


def test_learns_what_the_teacher_makes_of_a_pattern_that_all_tubelets_share() -> None:
    method, batch = _method(), _batch()
    batch = batch._replace(clips=batch.clips[:1, :, :2, :4, :4].repeat(3, 1, 2, 6, 6))
    optimizer = method.configure_optimizers()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = method(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_loss_stays_float32_under_autocast() -> None:
    method, batch = _method(), _batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, method(batch), rtol=0.02, atol=0.0)
