"""Devices and micro-batches do not change what a step trains."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from salt_plugin.batch import Batch, mask_sets
from salt_plugin.data.sampler import micro_batches
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import MultiBlockMasks, StepMasks
from salt_plugin.methods import SALT, VJEPA, PixelTeacher, Recipe, VideoMethod
from salt_plugin.models import EncoderShape, FrozenTeacher, Predictor, PredictorShape, VideoEncoder

GRID = (2, 6, 6)
SHAPE = EncoderShape("small", 24, 1, 2, patch_size=4)
HEAD = PredictorShape(dim=24, depth=1, num_heads=2)
RECIPE = Recipe(total_steps=10)


def _encoder() -> VideoEncoder:
    return VideoEncoder(SHAPE, init_std=0.2)


def _head(out_dim: int) -> Predictor:
    return Predictor(24, out_dim, HEAD, init_std=0.2)


METHODS: dict[str, Callable[[], VideoMethod]] = {
    "pixel_teacher": lambda: PixelTeacher(_encoder(), _head(SHAPE.patch_dim), PixelLoss(), RECIPE),
    "salt": lambda: SALT(_encoder(), _head(24), FrozenTeacher(_encoder()), LatentLoss(), RECIPE),
    "vjepa": lambda: VJEPA(_encoder(), _head(24), LatentLoss(), RECIPE, (0.9, 1.0)),
}


def _gradient(method: VideoMethod, loss: Tensor) -> Tensor:
    trained = [parameter for part in method.trained() for parameter in part.parameters()]
    gradients = torch.autograd.grad(loss, trained)
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("clips", [5, 8, 13])
@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_are_those_of_one_large_batch(name: str, clips: int) -> None:
    torch.manual_seed(0)
    method = METHODS[name]()
    pixels = torch.randn(clips, 3, 4, 24, 24)
    # The clips differ in how hard they are, so that weights show.
    pixels *= torch.linspace(0.2, 2, clips).view(-1, 1, 1, 1, 1)
    masks = StepMasks(MultiBlockMasks(), GRID, seed=0, clips=clips, group=4)
    lengths = masks.lengths(step := 1)
    assert len({tuple(group.masks) for group in lengths}) == len(lengths) > 1

    def part(slots: range) -> tuple[Tensor, Tensor]:
        own = pixels[slots.start : slots.stop]
        labels = torch.full((len(own),), -1)
        loss = method(Batch(own, labels, mask_sets(masks, step, slots), step))
        return loss.detach(), _gradient(method, loss)

    whole_loss, whole_gradient = part(range(clips))
    for devices, batch_size in ((1, clips), (1, 2), (2, 3), (3, 1)):
        loss, gradient = torch.zeros(()), torch.zeros_like(whole_gradient)
        for rank in range(devices):
            for slots in micro_batches(clips, batch_size, rank, devices):
                found = part(slots)
                loss += len(slots) / clips * found[0]
                gradient += len(slots) / clips * found[1]
        torch.testing.assert_close(loss, whole_loss, rtol=1e-5, atol=0)
        assert (gradient - whole_gradient).norm() < 1e-5 * whole_gradient.norm()
