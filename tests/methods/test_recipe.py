from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from drawn import draw
from pytorch_lightning import Callback, Trainer
from torch import nn
from torch.optim import AdamW
from torch.utils.data import DataLoader

from salt_plugin.batch import Batch
from salt_plugin.losses import PixelLoss
from salt_plugin.masks import TubeMasks
from salt_plugin.methods import PixelTeacher, Recipe
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder

SHAPE = EncoderShape("small", 24, 1, 2, patch_size=4)


def _lr(step: int, recipe: Recipe) -> float:
    """2e-4 to 6.25e-4 in a line, then a half cosine to 1e-6 (paper, section 3)."""
    start, end = recipe.warmup_start * recipe.lr, recipe.final_lr * recipe.lr
    if step < recipe.warmup_steps:
        return start + (recipe.lr - start) * (step + 1) / recipe.warmup_steps
    last = recipe.total_steps - recipe.warmup_steps - 1
    progress = (step - recipe.warmup_steps) / last
    return end + (recipe.lr - end) * (1 + math.cos(math.pi * progress)) / 2


def _weight_decay(step: int, recipe: Recipe) -> float:
    progress = step / (recipe.total_steps - 1)
    start, end = recipe.weight_decay, recipe.final_weight_decay
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _modules() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        VideoEncoder(SHAPE),
        Predictor(24, SHAPE.patch_dim, PredictorShape(dim=24, depth=1, num_heads=2)),
    ]


def test_defaults_are_the_papers_numbers() -> None:
    recipe = Recipe(total_steps=80_000)
    assert recipe.lr == 6.25e-4
    assert recipe.lr * recipe.warmup_start == pytest.approx(2e-4)
    assert recipe.lr * recipe.final_lr == pytest.approx(1e-6)
    assert recipe.warmup_steps == 10_000
    assert (recipe.weight_decay, recipe.final_weight_decay) == (0.04, 0.4)
    assert recipe.betas == (0.9, 0.95)
    assert recipe.clip_grad == 0.02


@pytest.mark.parametrize("step", [0, 1, 4_999, 9_999, 10_000, 45_000, 60_000, 79_999])
def test_learning_rate_at_a_step(step: int) -> None:
    recipe = Recipe(total_steps=80_000)
    lr = recipe.lr_at(step)
    assert lr == pytest.approx(_lr(step, recipe), rel=1e-6)
    known = {9_999: 6.25e-4, 10_000: 6.25e-4, 79_999: 1e-6}
    if step in known:
        assert lr == pytest.approx(known[step], rel=1e-6)


@pytest.mark.parametrize("step", [0, 1, 20_000, 40_000, 79_999])
def test_weight_decay_at_a_step(step: int) -> None:
    recipe = Recipe(total_steps=80_000)
    assert recipe.weight_decay_at(step) == pytest.approx(_weight_decay(step, recipe), rel=1e-6)
    known = {0: 0.04, 79_999: 0.4}
    if step in known:
        assert recipe.weight_decay_at(step) == pytest.approx(known[step])


def test_a_cool_down_is_linear_within_the_steps_and_ends_at_its_rate() -> None:
    recipe = Recipe(240_000, lr=5.25e-4, final_lr=1.0, cooldown_share=0.05, cooldown_lr=0.2)
    assert recipe.lr_at(227_999) == pytest.approx(5.25e-4)
    found = [recipe.lr_at(step) for step in (228_000 - 1, 234_000 - 1, 240_000 - 1)]
    assert found == pytest.approx([5.25e-4, 3.15e-4, 1.05e-4])
    middle = [recipe.lr_at(step + 0.5) for step in (230_000, 230_001)]  # under a budget
    assert middle[0] - middle[1] == pytest.approx(4.2e-4 / 12_000, rel=1e-6)
    # After a cosine, from where that ends.
    recipe = Recipe(1000, warmup_steps=100, cooldown_share=0.2, cooldown_lr=0.0)
    assert recipe.lr_at(799) == pytest.approx(1e-6)
    assert recipe.lr_at(999) == 0.0


def test_stretched_schedules_end_where_v_jepas_do() -> None:
    """V-JEPA 1 (`ipe_scale` 1.25): 7.5e-5, .366 and, for its momentum, .9996."""
    recipe = Recipe(90_000, warmup_steps=12_000, stretch=1.25)
    assert recipe.lr_at(89_999) == pytest.approx(7.5e-5, rel=5e-3)
    assert recipe.weight_decay_at(89_999) == pytest.approx(0.366, abs=5e-4)


def test_norms_and_biases_are_not_decayed() -> None:
    modules = _modules()
    recipe = Recipe(total_steps=10, warmup_steps=0)
    optimizer = recipe.optimizer(modules)
    assert isinstance(optimizer, AdamW)
    decayed = {}
    for group in optimizer.param_groups:
        assert group["betas"] == (0.9, 0.95)
        decayed |= {id(p): group["weight_decay"] > 0 for p in group["params"]}
    named = [pair for module in modules for pair in module.named_parameters()]
    assert len(decayed) == len(named)
    for name, parameter in named:
        assert decayed[id(parameter)] == ("norm" not in name and not name.endswith("bias")), name

    recipe.apply(optimizer, 9)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.4]


class _Watch(Callback):
    """Notes what each optimiser step was made with."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, float]] = []
        self.norms: list[tuple[float, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]

        def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            decay, no_decay = optimizer.param_groups
            assert decay["lr"] == no_decay["lr"]
            self.steps.append((decay["lr"], decay["weight_decay"], no_decay["weight_decay"]))
            gradients = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            clipped = torch.stack(gradients).norm().item()
            self.norms.append((float(pl_module.grad_norm), clipped))

        optimizer.register_step_post_hook(note)


def _train(recipe: Recipe, steps: int) -> _Watch:
    encoder, decoder = _modules()
    batches = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        masks = draw(TubeMasks(0.5), 2, (2, 4, 4), step=step)
        clips = torch.randn(2, 3, 4, 16, 16, generator=generator)
        batches.append(Batch(clips, torch.zeros(2), masks, step))
    watch = _Watch()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(
        PixelTeacher(encoder, decoder, PixelLoss(), recipe), DataLoader(batches, batch_size=None)
    )
    return watch


@pytest.mark.filterwarnings("ignore")
def test_lightning_follows_both_schedules_and_clips() -> None:
    recipe = Recipe(total_steps=8, warmup_steps=3, lr=1e-3, clip_grad=0.02)
    watch = _train(recipe, 8)
    assert len(watch.steps) == 8
    for step, (lr, weight_decay, none) in enumerate(watch.steps):
        assert lr == pytest.approx(_lr(step, recipe), rel=1e-6)
        assert weight_decay == pytest.approx(_weight_decay(step, recipe), rel=1e-6)
        assert none == 0.0
    for found, clipped in watch.norms:
        assert found > 0.02
        assert clipped == pytest.approx(0.02, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_without_a_limit_gradients_are_watched_but_not_clipped() -> None:
    watch = _train(Recipe(total_steps=2, warmup_steps=0, clip_grad=0.0), 2)
    for found, clipped in watch.norms:
        assert clipped == pytest.approx(found, rel=1e-5)


def test_modules_are_clipped_apart_once_the_warm_up_is_over() -> None:
    encoder, decoder = _modules()
    recipe = Recipe(100, warmup_steps=40, clip_grad=0.5, clip_each=True, clip_after=1.025)
    method = PixelTeacher(encoder, decoder, PixelLoss(), recipe)
    optimizer = method.optimizer()
    parts = [list(module.parameters()) for module in method.trained()]

    def norms(position: float) -> list[float]:
        for size, part in enumerate(parts, start=1):
            for one in part:
                one.grad = torch.full_like(one, float(size))
        method.clip(optimizer, position)
        return [float(torch.stack([one.grad.norm() for one in part]).norm()) for part in parts]

    counts = [sum(one.numel() for one in part) for part in parts]
    whole = [size * math.sqrt(count) for size, count in enumerate(counts, start=1)]
    assert norms(40) == pytest.approx(whole)
    assert norms(41) == pytest.approx([0.5, 0.5])
    assert float(method.grad_norm) == pytest.approx(math.hypot(*whole))  # before clipping
    optimizer.zero_grad()
    parts[1][0].grad = torch.full_like(parts[1][0], math.nan)
    method.clip(optimizer, 41)
    assert bool(optimizer.found_inf)  # type: ignore[attr-defined]


def test_the_optimizer_is_saved_in_the_order_of_files() -> None:
    encoder = VideoEncoder(EncoderShape("small", embed_dim=24, depth=1, num_heads=2, patch_size=4))
    optimizer = Recipe(10, lr=1e-3).optimizer([encoder])
    encoder(torch.randn(1, 3, 2, 8, 8)).square().sum().backward()
    optimizer.step()
    saved, other = optimizer.state_dict(), Recipe(10, lr=1e-3).optimizer([encoder])
    qkv = encoder.blocks[0].attn.qkv
    for parameter in qkv.parameters():
        number = next(
            i
            for i, one in enumerate(p for group in optimizer.param_groups for p in group["params"])
            if one is parameter
        )
        own = optimizer.state[parameter]["exp_avg"]
        assert torch.equal(saved["state"][number]["exp_avg"], qkv.to_file(own))
        assert not torch.equal(saved["state"][number]["exp_avg"], own)
    other.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        assert all(torch.equal(other.state[parameter][name], state[name]) for name in state)
