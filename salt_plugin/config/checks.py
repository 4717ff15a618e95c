"""Values that cannot work, found before anything starts."""

from __future__ import annotations

from typing import Any

from salt_plugin.config.schema import RunConfig
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import EncoderShape


def check_values(config: RunConfig) -> None:
    """Checks what depends on several keys, and names of sizes.

    Raises:
        ConfigError: The first value that cannot work.
    """
    trainer, method = config.trainer, config.method
    _require(
        trainer.max_steps != -1 or trainer.max_epochs != -1,
        "trainer.max_steps",
        trainer.max_steps,
        "at least 1, or -1 with trainer.max_epochs",
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


def _require(good: bool, key: str, found: Any, expected: str) -> None:
    if not good:
        raise ConfigError(f"{key}={found}: expected {expected}")
