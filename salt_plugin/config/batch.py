"""Clips of a step, over all processes that train together, and the learning rate for them."""

from __future__ import annotations

import math

from salt_plugin.config import registry
from salt_plugin.config.schema import RunConfig
from salt_plugin.errors import ConfigError

# As conf/method/shared has them.
PRINTED_BATCH = 3072


def clips_of_rank(config: RunConfig, world_size: int) -> int:
    """Returns the clips that each of `world_size` processes takes of a step.

    Raises:
        ConfigError: `method.global_batch_size` cannot be divided among them.
    """
    total = config.method.global_batch_size
    if total is None:
        return config.loader.batch_size
    if total % world_size:
        raise ConfigError(
            f"method.global_batch_size={total}: expected a multiple of the {world_size} processes "
            "that train together"
        )
    return int(total // world_size)


def rate_of_another_batch(config: RunConfig, clips: int) -> str | None:
    """Returns a line where the printed learning rate runs at another batch than it is printed for.

    Args:
        config: The run's.
        clips: Of a step, over all processes.
    """
    rate = config.optimizer.lr
    if rate != registry.get(config.method.name).printed_lr or clips == PRINTED_BATCH:
        return None
    scaled = rate * math.sqrt(clips / PRINTED_BATCH)
    written = f"{rate:.2e}".replace("e-0", "e-")
    return (
        f"optimizer.lr={written} is printed for {PRINTED_BATCH} clips a step; this run has "
        f"{clips}. Scaled by the square root, as is customary for AdamW, it would be "
        f"optimizer.lr={scaled:.1e}"
    )
