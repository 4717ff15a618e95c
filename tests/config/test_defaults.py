"""The YAML files and the classes say the same, and what the paper prints."""

from __future__ import annotations

import inspect
from dataclasses import asdict, fields
from typing import Any

import pytest

from salt_plugin.config import RunConfig, build, compose, load_config
from salt_plugin.data import DemoSpec
from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.masks import BlockSpec, MaskGenerator, MultiBlockMasks, TubeMasks
from salt_plugin.methods import Recipe
from salt_plugin.models import EncoderShape, Predictor, PredictorShape, VideoEncoder
from salt_plugin.training.run_shapes import run_shapes
from salt_plugin.transforms import SALTTransform


@pytest.fixture(scope="module")
def salt() -> RunConfig:
    return load_config(compose(["method=salt", "input_dir=videos"]))


def _default(cls: type, name: str) -> Any:
    return inspect.signature(cls).parameters[name].default


@pytest.mark.parametrize("method", ["salt", "pixel_teacher"])
def test_paper(method: str) -> None:
    config = load_config(compose([f"method={method}", "input_dir=videos"]))
    assert config.method.encoder == "vit_large"
    assert config.trainer.max_steps == {"salt": 160_000, "pixel_teacher": 80_000}[method]
    clip, model, optim = config.method.clip, config.method.model, config.method.optim
    assert (clip.frames, clip.size, clip.step, clip.fps) == (16, 224, 4, None)
    assert (model.patch_size, model.tubelet_size) == (16, 2)
    shapes = run_shapes(config)
    assert shapes.predictor_of(shapes.encoder) == PredictorShape(384, 12, 12)
    assert config.optimizer.lr == 6.25e-4
    assert config.optimizer.lr * optim.warmup_start == pytest.approx(2e-4)
    assert config.optimizer.lr * optim.final_lr == pytest.approx(1e-6)
    assert optim.warmup_steps == 10_000
    assert (config.optimizer.weight_decay, optim.final_weight_decay) == (0.04, 0.4)
    assert optim.betas == [0.9, 0.95]
    assert optim.clip_grad == 0.02
    assert 3072 % config.loader.batch_size == 0


def _under(method: str) -> RunConfig:
    return load_config(compose([f"method={method}", "input_dir=videos"]))


def test_vjepa() -> None:
    config = _under("vjepa")
    assert (config.method.momentum.start, config.method.momentum.end) == (0.998, 1.0)
    assert config.optimizer.lr == 6.25e-4
    optim = config.method.optim
    assert (optim.betas, optim.clip_grad, optim.clip_each) == ([0.9, 0.999], 10.0, True)
    assert optim.clip_after * 12_000 == pytest.approx(12_300)  # an epoch after the warm-up
    assert (config.optimizer.weight_decay, config.method.optim.final_weight_decay) == (0.04, 0.4)


def test_vjepa2() -> None:
    config = _under("vjepa2")
    optim = config.method.optim
    assert (config.method.momentum.start, config.method.momentum.end) == (0.99925, 0.99925)
    assert config.optimizer.lr == 5.25e-4
    assert optim.final_lr == 1.0
    assert optim.cooldown_share * config.trainer.max_steps == pytest.approx(12_000)
    assert optim.cooldown_lr * config.optimizer.lr == pytest.approx(1.06e-4, rel=1e-3)
    assert (optim.betas, optim.clip_grad) == ([0.9, 0.999], 0.0)
    assert (config.optimizer.weight_decay, optim.final_weight_decay) == (0.04, 0.04)
    assert config.trainer.max_steps == 240_000


def test_videomae() -> None:
    masks = build(_under("videomae").method.masks, "method.masks", MaskGenerator)
    assert isinstance(masks, TubeMasks)
    assert (masks.ratio, masks.num_sets) == (0.9, 1)


@pytest.mark.parametrize("method", ["vjepa", "vjepa2", "videomae"])
def test_baselines_differ_from_salt_in_nothing_else(method: str) -> None:
    """Architecture, clips, augmentation and batch are SALT's: a comparison is one of methods."""
    config, salt = _under(method), _under("salt")
    assert config.loader == salt.loader
    for key in ("encoder", "clip", "model", "transform", "data"):
        assert getattr(config.method, key) == getattr(salt.method, key)
    steps = salt.trainer.max_steps + salt.method.teacher.max_steps
    assert config.trainer.max_steps == steps


def test_paper_two_stages(salt: RunConfig) -> None:
    assert salt.method.teacher.max_steps == 80_000
    assert salt.method.teacher.encoder == "vit_large"
    assert salt.method.teacher.path is None


def test_masks() -> None:
    multiblock = load_config(compose(["method=salt", "input_dir=videos"])).method.masks
    built, default = build(multiblock, "method.masks", MaskGenerator), MultiBlockMasks()
    assert isinstance(built, MultiBlockMasks)
    assert built.specs == default.specs == [BlockSpec(8, 0.15), BlockSpec(2, 0.7)]
    assert built.aspect_ratio == default.aspect_ratio == (0.75, 1.5)
    tube = load_config(compose(["method=salt", "method/masks=tube"])).method.masks
    built, default = build(tube, "method.masks", MaskGenerator), TubeMasks()
    assert isinstance(built, TubeMasks)
    assert (built.ratio, built.num_sets) == (default.ratio, default.num_sets) == (0.9, 2)


def test_losses(salt: RunConfig) -> None:
    latent, pixel = (
        build(salt.method.loss, "loss", LatentLoss),
        build(salt.method.pixel_loss, "pixel_loss", PixelLoss),
    )
    assert isinstance(latent, LatentLoss)
    assert latent.distance == LatentLoss().distance == "l1"
    assert latent.normalize_targets is LatentLoss().normalize_targets is True
    assert isinstance(pixel, PixelLoss)
    assert pixel.normalize is PixelLoss().normalize is True


def test_transform(salt: RunConfig) -> None:
    node = salt.method.transform
    assert node["_target_"] == "salt_plugin.transforms.SALTTransform"
    assert tuple(node["scale"]) == _default(SALTTransform, "scale") == (0.3, 1.0)
    assert tuple(node["ratio"]) == _default(SALTTransform, "ratio") == (0.75, 1.35)
    assert node["hflip"] == _default(SALTTransform, "hflip") == 0.5


def test_models(salt: RunConfig) -> None:
    shapes, predictor = run_shapes(salt), salt.method.model.predictor
    assert shapes.predictor_of(shapes.encoder) == PredictorShape()
    assert salt.method.model.init_std == _default(VideoEncoder, "init_std")
    assert predictor.init_std == _default(Predictor, "init_std")
    assert salt.method.model.drop_path == _default(VideoEncoder, "drop_path") == 0.0
    shape = EncoderShape.named(salt.method.encoder)
    assert shape.patch_size == salt.method.model.patch_size
    assert shape.tubelet_size == salt.method.model.tubelet_size


def test_recipe(salt: RunConfig) -> None:
    optim, recipe = salt.method.optim, Recipe(total_steps=1)
    assert salt.optimizer.lr == recipe.lr
    assert salt.optimizer.weight_decay == recipe.weight_decay
    assert tuple(optim.betas) == recipe.betas
    shared = {field.name for field in fields(recipe)} & {field.name for field in fields(optim)}
    for name in shared - {"betas"}:
        assert getattr(optim, name) == getattr(recipe, name), name
    assert {"warmup_start", "warmup_steps", "final_lr", "clip_grad"} <= shared


def test_demo() -> None:
    demo = load_config(compose(["method=salt"])).method.data.demo
    assert demo == asdict(DemoSpec())
