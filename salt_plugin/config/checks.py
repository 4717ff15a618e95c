"""Values that cannot work, found before anything starts."""

from __future__ import annotations

from typing import Any

from salt_plugin.config.schema import RunConfig, SALTConfig
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import EncoderShape

PRECISIONS = ("32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed", "64", "64-true")


def check_values(config: RunConfig) -> None:
    """Checks ranges and names.

    Raises:
        ConfigError: The first value that cannot work.
    """
    method, optim, predictor = config.method, config.method.optim, config.method.model.predictor
    at_least_one: dict[str, Any] = {
        "loader.batch_size": config.loader.batch_size,
        "method.clip.frames": method.clip.frames,
        "method.clip.size": method.clip.size,
        "method.clip.step": method.clip.step,
        "method.model.patch_size": method.model.patch_size,
        "method.model.tubelet_size": method.model.tubelet_size,
        "method.model.predictor.dim": predictor.dim,
        "method.model.predictor.depth": predictor.depth,
        "method.model.predictor.num_heads": predictor.num_heads,
        "method.checkpoint.every_n_steps": method.checkpoint.every_n_steps,
        "trainer.gpus": config.trainer.gpus,
    }
    if isinstance(method, SALTConfig) and method.teacher.path is None:
        at_least_one["method.teacher.max_steps"] = method.teacher.max_steps
    for key, value in at_least_one.items():
        _require(value >= 1, key, value, "at least 1")
    trainer = config.trainer
    _require(
        trainer.max_steps >= 1 or (trainer.max_steps == -1 and trainer.max_epochs >= 1),
        "trainer.max_steps",
        trainer.max_steps,
        "at least 1, or -1 with trainer.max_epochs",
    )
    _require(
        trainer.max_epochs >= 1 or trainer.max_epochs == -1,
        "trainer.max_epochs",
        trainer.max_epochs,
        "at least 1, or -1 for no limit",
    )
    _require(
        str(trainer.precision) in PRECISIONS,
        "trainer.precision",
        trainer.precision,
        f"one of {', '.join(PRECISIONS)}",
    )
    _require(
        config.loader.num_workers >= -1,
        "loader.num_workers",
        config.loader.num_workers,
        "-1 or more",
    )
    _require(config.seed >= 0, "seed", config.seed, "0 or more")
    _require(config.optimizer.lr > 0, "optimizer.lr", config.optimizer.lr, "more than 0")
    betas = optim.betas
    _require(
        len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        "method.optim.betas",
        betas,
        "two numbers from 0 to below 1",
    )
    for key, decay in {
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "method.optim.final_weight_decay": optim.final_weight_decay,
    }.items():
        _require(decay >= 0, key, decay, "0 or more")
    drop_path = method.model.drop_path
    _require(0 <= drop_path < 1, "method.model.drop_path", drop_path, "a rate from 0 to below 1")
    inputs = config.input_dir
    _require(
        isinstance(inputs, str)
        or (isinstance(inputs, list) and all(isinstance(path, str) for path in inputs)),
        "input_dir",
        inputs,
        "a folder, a CSV, a list of these, or '' for the demo",
    )
    _require(optim.warmup_steps >= 0, "method.optim.warmup_steps", optim.warmup_steps, "0 or more")
    for name in ("warmup_start", "max_warmup_share", "final_lr"):
        share = getattr(optim, name)
        _require(0 <= share <= 1, f"method.optim.{name}", share, "a share, from 0 to 1")
    _require(optim.clip_grad >= 0, "method.optim.clip_grad", optim.clip_grad, "0 (off) or more")
    for key, std in {
        "method.model.init_std": method.model.init_std,
        "method.model.predictor.init_std": predictor.init_std,
    }.items():
        _require(std > 0, key, std, "more than 0")
    if method.clip.fps is not None:
        _require(method.clip.fps > 0, "method.clip.fps", method.clip.fps, "more than 0, or null")
    _require(method.probe in (None, "demo"), "method.probe", method.probe, "null or demo")
    EncoderShape.named(method.encoder, "method.encoder")
    if isinstance(method, SALTConfig):
        EncoderShape.named(method.teacher.encoder, "method.teacher.encoder")


def _require(good: bool, key: str, found: Any, expected: str) -> None:
    if not good:
        raise ConfigError(f"{key}={found}: expected {expected}")
