"""Ten steps of training are those of the plain restatement: losses, weights, moving averages."""

from __future__ import annotations

from collections.abc import Callable

import plain_step
import pytest
import torch
import torch.nn.functional as F
from drawn import draw
from torch import Tensor

from salt_plugin.batch import Batch
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.methods import SALT, VJEPA, PixelTeacher, Recipe, VideoMethod
from salt_plugin.models import EncoderShape, FrozenTeacher, Predictor, PredictorShape, VideoEncoder

GRID = (2, 4, 6)
STUDENT = EncoderShape("student", 32, 2, 2, patch_size=4)
TEACHER = EncoderShape("teacher", 48, 3, 3, patch_size=4)
PREDICTOR = PredictorShape(dim=24, depth=2, num_heads=2)
RECIPE = Recipe(total_steps=10, warmup_steps=2, lr=3e-3, clip_grad=1.0)
BETAS, EPS = (0.9, 0.95), 1e-8

MOMENTUM = (0.8, 1.0)

PlainLoss = Callable[[Batch, plain_step.State, plain_step.State], Tensor]
# The method, its loss in plain words, and the weights that follow the encoder's, if any do.
Case = tuple[VideoMethod, PlainLoss, plain_step.State]


def _batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    clips = torch.randn(3, 3, 4, 16, 24, generator=generator, dtype=torch.float64)
    return Batch(clips, torch.full((3,), -1), draw(MultiBlockMasks(), 3, GRID, step=step), step)


def _latent_loss(
    batch: Batch,
    encoder: plain_step.State,
    head: plain_step.State,
    teacher: plain_step.State,
    teacher_heads: int,
) -> Tensor:
    everything = torch.arange(48).expand(3, -1)
    latents = plain_step.encode(batch.clips, everything, GRID, teacher, teacher_heads)
    latents = F.layer_norm(latents, latents.shape[-1:])
    losses = []
    for number, mask in enumerate(batch.masks):
        seen = plain_step.encode(batch.clips, mask.context, GRID, encoder, 2)
        predicted = plain_step.predict(seen, *mask[:2], GRID, head, 2, number)
        wanted = torch.stack([latents[b, mask.target[b]] for b in range(3)])
        losses.append((predicted - wanted).abs().mean())
    return sum(losses) / len(losses)


def _salt() -> Case:
    torch.manual_seed(0)
    teacher = VideoEncoder(TEACHER, init_std=0.1).double()
    frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
    method = SALT(
        VideoEncoder(STUDENT, init_std=0.1).double(),
        Predictor(32, 48, PREDICTOR, init_std=0.1).double(),
        FrozenTeacher(teacher),
        LatentLoss(),
        RECIPE,
    )

    def loss(batch: Batch, encoder: plain_step.State, head: plain_step.State) -> Tensor:
        return _latent_loss(batch, encoder, head, frozen, teacher_heads=3)

    return method, loss, {}


def _vjepa() -> Case:
    torch.manual_seed(0)
    encoder = VideoEncoder(STUDENT, init_std=0.1).double()
    target = {name: value.clone() for name, value in encoder.state_dict().items()}
    predictor = Predictor(32, 32, PREDICTOR, init_std=0.1).double()
    method = VJEPA(encoder, predictor, LatentLoss(), RECIPE, MOMENTUM)

    def loss(batch: Batch, encoder: plain_step.State, head: plain_step.State) -> Tensor:
        return _latent_loss(batch, encoder, head, target, teacher_heads=2)

    return method, loss, target


def _pixel_teacher() -> Case:
    torch.manual_seed(0)
    method = PixelTeacher(
        VideoEncoder(STUDENT, init_std=0.1).double(),
        Predictor(32, STUDENT.patch_dim, PREDICTOR, init_std=0.1).double(),
        PixelLoss(normalize=False),
        RECIPE,
    )

    def loss(batch: Batch, encoder: plain_step.State, head: plain_step.State) -> Tensor:
        pixels = plain_step.tubelets(batch.clips, 2, 4)
        losses = []
        for number, mask in enumerate(batch.masks):
            seen = plain_step.encode(batch.clips, mask.context, GRID, encoder, 2)
            predicted = plain_step.predict(seen, *mask[:2], GRID, head, 2, number)
            wanted = torch.stack([pixels[b, mask.target[b]] for b in range(3)])
            losses.append((predicted - wanted).square().mean())
        return sum(losses) / len(losses)

    return method, loss, {}


def _fast_losses(method: VideoMethod) -> list[float]:
    optimizer = method.optimizer()
    losses = []
    for step in range(RECIPE.total_steps):
        loss = method(_batch(step))
        optimizer.zero_grad()
        loss.backward()
        method.clip(optimizer)
        method.recipe.apply(optimizer, step)
        optimizer.step()
        method.update_ema(step)
        losses.append(loss.item())
    return losses


def _plain_losses(
    method: VideoMethod, plain_loss: PlainLoss, target: plain_step.State
) -> tuple[list[float], dict[str, Tensor]]:
    """AdamW after its paper, a parameter at a time; then the moving average."""
    states = [
        {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}
        for module in method.trained()
    ]
    prefixes = [name for name, child in method.named_children() if child in method.trained()]
    named = {
        f"{prefix}.{name}": value
        for prefix, state in zip(prefixes, states, strict=True)
        for name, value in state.items()
    }
    moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in named.items()}
    losses = []
    for step in range(RECIPE.total_steps):
        loss = plain_loss(_batch(step), *states)
        gradients = torch.autograd.grad(loss, list(named.values()))
        norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        scale = min(1.0, RECIPE.clip_grad / (norm.item() + 1e-6))
        lr = method.recipe.lr_at(step)
        with torch.no_grad():
            for (name, value), gradient in zip(named.items(), gradients, strict=True):
                gradient = gradient * scale
                first, second = moments[name]
                first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
                second.mul_(BETAS[1]).add_(gradient**2, alpha=1 - BETAS[1])
                # Mask tokens decay as well: in the host's split only norms and biases do not.
                is_matrix = "norm" not in name and not name.endswith("bias")
                decay = method.recipe.weight_decay_at(step) if is_matrix else 0.0
                value.mul_(1 - lr * decay)
                corrected = second / (1 - BETAS[1] ** (step + 1))
                update = first / (1 - BETAS[0] ** (step + 1)) / (corrected.sqrt() + EPS)
                value.sub_(lr * update)
            momentum = MOMENTUM[0] + (MOMENTUM[1] - MOMENTUM[0]) * step / RECIPE.total_steps
            for name, value in target.items():
                value.mul_(momentum).add_(states[0][name], alpha=1 - momentum)
        losses.append(loss.item())
    return losses, named | {f"teacher.{name}": value for name, value in target.items()}


@pytest.mark.parametrize("build", [_salt, _vjepa, _pixel_teacher])
def test_ten_steps_are_those_of_the_plain_restatement(
    build: Callable[[], Case],
) -> None:
    method, plain_loss, target = build()
    expected, weights = _plain_losses(method, plain_loss, target)
    losses = _fast_losses(method)
    assert abs(expected[0] - expected[-1]) > 0.01  # ten steps that go somewhere
    assert losses == pytest.approx(expected, rel=1e-6)
    for name, value in method.state_dict().items():
        torch.testing.assert_close(value, weights[name].detach(), rtol=1e-4, atol=1e-5)
