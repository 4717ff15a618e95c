"""Values that cannot work, found before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from salt_plugin.config.schema import RunConfig
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import EncoderShape

PRECISIONS = ("32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")

STEPS_OR_EPOCHS = "at least 1, or -1 with trainer.max_epochs"

Rule = tuple[str, Callable[[Any], bool], tuple[str, ...]]

RULES: tuple[Rule, ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        (
            "loader.batch_size",
            "method.clip.frames",
            "method.clip.size",
            "method.clip.step",
            "method.model.patch_size",
            "method.model.tubelet_size",
            "method.model.predictor.dim",
            "method.model.predictor.depth",
            "method.model.predictor.num_heads",
            "method.checkpoint.every_n_steps",
            "method.max_nonfinite_steps",
        ),
    ),
    (
        "more than 0",
        lambda value: value > 0,
        ("optimizer.lr", "method.model.init_std", "method.model.predictor.init_std"),
    ),
    (
        "0 or more",
        lambda value: value >= 0,
        (
            "trainer.gpus",
            "optimizer.weight_decay",
            "method.optim.final_weight_decay",
            "method.optim.warmup_steps",
        ),
    ),
    (
        "a share, from 0 to 1",
        lambda value: 0 <= value <= 1,
        (
            "method.optim.warmup_start",
            "method.optim.max_warmup_share",
            "method.optim.final_lr",
            "method.data.max_bad",
        ),
    ),
    (
        "a rate from 0 to below 1",
        lambda value: 0 <= value < 1,
        ("method.model.drop_path",),
    ),
    (
        "two numbers from 0 to below 1",
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
        ("method.optim.betas",),
    ),
    ("0 to 2^63 - 1", lambda value: 0 <= value < 2**63, ("seed",)),
    ("0 (off) or more", lambda value: value >= 0, ("method.optim.clip_grad",)),
    (
        "0 or null (off), or more",
        lambda value: value is None or value >= 0,
        ("method.checkpoint.every_minutes",),
    ),
    ("-1 or more", lambda value: value >= -1, ("loader.num_workers",)),
    (
        "at least 1, or -1 for no limit",
        lambda value: value >= 1 or value == -1,
        ("trainer.max_epochs",),
    ),
    (
        STEPS_OR_EPOCHS,
        lambda value: value >= 1 or value == -1,
        ("trainer.max_steps",),
    ),
    (
        f"one of {', '.join(PRECISIONS)}",
        lambda value: str(value) in PRECISIONS,
        ("trainer.precision",),
    ),
    (
        "more than 0, or null",
        lambda value: value is None or value > 0,
        ("method.clip.fps", "method.data.timeout", "method.data.stall", "compute.budget"),
    ),
    (
        "a share between 0 and 1",
        lambda value: 0 < value < 1,
        ("compute.teacher_share",),
    ),
    (
        "auto, true or false",
        lambda value: value == "auto" or isinstance(value, bool),
        ("method.model.compile",),
    ),
    (
        "at least 1, or null",
        lambda value: value is None or value >= 1,
        ("method.encoders_every_n_steps", "method.global_batch_size", "loader.prefetch_factor"),
    ),
    (
        "one of attentive, linear, knn, all",
        lambda value: value in ("attentive", "linear", "knn", "all"),
        ("method.probe_protocol",),
    ),
    (
        "one of pyav, auto, decord",
        lambda value: value in ("pyav", "auto", "decord"),
        ("method.data.reader",),
    ),
    (
        "a folder, a CSV, a video, or a list of these",
        lambda value: (
            isinstance(value, str)
            or (
                isinstance(value, list)
                and len(value) > 0
                and all(isinstance(path, str) and path for path in value)
            )
        ),
        ("input_dir",),
    ),
)

MOMENTUM_RULES: tuple[Rule, ...] = (
    (
        "a share, from 0 to 1",
        lambda value: 0 <= value <= 1,
        ("method.momentum.start", "method.momentum.end"),
    ),
)


def check_values(config: RunConfig) -> None:
    """Checks ranges and names.

    Raises:
        ConfigError: The first value that cannot work.
    """
    check_rules(config, RULES)
    trainer, method = config.trainer, config.method
    _require(
        trainer.max_steps != -1 or trainer.max_epochs != -1,
        "trainer.max_steps",
        trainer.max_steps,
        STEPS_OR_EPOCHS,
    )
    if config.loader.num_workers == 0:
        ahead = config.loader.prefetch_factor
        _require(
            ahead is None,
            "loader.prefetch_factor",
            ahead,
            "null with loader.num_workers=0, where nothing is loaded ahead",
        )
    if config.compute.budget is not None:
        for key, found, left_out in (
            ("trainer.max_steps", trainer.max_steps, method.default_steps),
            ("trainer.max_epochs", trainer.max_epochs, -1),
        ):
            ends = f"nothing beside compute.budget={config.compute.budget}, which ends training"
            _require(found == left_out, key, found, ends)
    EncoderShape.named(method.encoder, "method.encoder")
    if hasattr(method, "teacher"):
        EncoderShape.named(method.teacher.encoder, "method.teacher.encoder")
        steps = method.teacher.max_steps
        trains = method.teacher.path is None
        _require(steps >= 1 or not trains, "method.teacher.max_steps", steps, "at least 1")
    if hasattr(method, "momentum"):
        check_rules(config, MOMENTUM_RULES)


def require_input(config: RunConfig) -> None:
    """Checks that there is something to train on; what only plans can do without.

    Raises:
        ConfigError: `input_dir` is empty.
    """
    if not config.input_dir:
        raise ConfigError(
            "input_dir is empty: expected videos to train on; give input_dir=VIDEOS (a folder, a "
            "list or a video), or preset=demo for the embedded demo"
        )


def check_rules(config: Any, rules: tuple[Rule, ...], prefix: str = "") -> None:
    """Checks each rule on each of its keys, dotted attributes of the configuration.

    Raises:
        ConfigError: The first value that cannot work.
    """
    for expected, holds, keys in rules:
        for key in keys:
            found = reduce(getattr, key.split("."), config)
            _require(holds(found), f"{prefix}{key}", found, expected)


def _require(good: bool, key: str, found: Any, expected: str) -> None:
    if not good:
        raise ConfigError(f"{key}={found}: expected {expected}")
