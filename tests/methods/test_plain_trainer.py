"""Each method trains under a plain Lightning trainer, and in a loop of one's own, alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from drawn import draw
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from salt_plugin.batch import Batch
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import TubeMasks
from salt_plugin.methods import SALT, VJEPA, PixelTeacher, Recipe, VideoMethod
from salt_plugin.models import EncoderShape, FrozenTeacher, Predictor, PredictorShape, VideoEncoder

SHAPE = EncoderShape("small", 24, 1, 2, patch_size=4)
STEPS, SPOILT = 6, 3


def _encoder() -> VideoEncoder:
    return VideoEncoder(SHAPE, init_std=0.1)


def _head(out_dim: int) -> Predictor:
    return Predictor(24, out_dim, PredictorShape(dim=24, depth=1, num_heads=2), init_std=0.1)


METHODS: dict[str, Callable[[Recipe], VideoMethod]] = {
    "pixels": lambda recipe: PixelTeacher(_encoder(), _head(SHAPE.patch_dim), PixelLoss(), recipe),
    "salt": lambda recipe: SALT(
        _encoder(), _head(24), FrozenTeacher(_encoder()), LatentLoss(), recipe
    ),
    "vjepa": lambda recipe: VJEPA(_encoder(), _head(24), LatentLoss(), recipe, (0.8, 1.0)),
}


def _batches(spoilt: bool = False) -> list[Batch]:
    batches = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        masks = draw(TubeMasks(0.5), 2, (2, 4, 4), step=step)
        clips = torch.randn(2, 3, 4, 16, 16, generator=generator)
        if spoilt and step == SPOILT:
            clips[0, 0, 0, 0, 0] = torch.inf
        batches.append(Batch(clips, torch.zeros(2), masks, step))
    return batches


def _own_loop(method: VideoMethod, batches: Iterable[Batch]) -> None:
    """The loop that the docstring of `VideoMethod` promises will do."""
    optimizer = method.optimizer()
    for position, batch in enumerate(batches):
        method.recipe.apply(optimizer, position)
        optimizer.zero_grad()
        method(batch).backward()
        method.clip(optimizer)
        optimizer.step()
        method.update_ema(position)
    method.check_frozen()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_plain_trainer_ends_with_the_weights_of_a_loop_of_ones_own(
    name: str, spoilt: bool
) -> None:
    torch.manual_seed(0)
    first = METHODS[name](Recipe(total_steps=STEPS, warmup_steps=2, lr=1e-2, clip_grad=1.0))
    before, second = copy.deepcopy(first.state_dict()), copy.deepcopy(first)
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(first, DataLoader(_batches(spoilt), batch_size=None))
    _own_loop(second, _batches(spoilt))
    after, other = first.state_dict(), second.state_dict()
    assert after.keys() == other.keys() == before.keys()
    for key, value in after.items():
        assert torch.equal(value, other[key]), key
        assert value.isfinite().all(), key
    kept = first.result.norm.weight
    assert not torch.equal(kept, torch.ones_like(kept))


@pytest.mark.parametrize("name", METHODS)
def test_no_gradient_of_a_loss_that_is_not_finite_is_finite(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    method = METHODS[name](Recipe(total_steps=STEPS))
    original = type(method).forward
    monkeypatch.setattr(type(method), "forward", lambda *a: original(*a) + torch.inf)
    method(_batches()[0]).backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert gradients
    assert not any(gradient.isfinite().any() for gradient in gradients)
