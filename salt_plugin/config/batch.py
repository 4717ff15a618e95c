"""Clips of a step, over all processes that train together."""

from __future__ import annotations

from salt_plugin.config.schema import RunConfig
from salt_plugin.errors import ConfigError


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
