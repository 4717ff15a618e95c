"""Composing our configurations without torch and without the host, for planning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize
from omegaconf import DictConfig, OmegaConf


def video_defaults(method: str) -> dict[str, Any]:
    """Returns the nodes `method` and `compute` with their defaults, which are for videos.

    Args:
        method: Name of a method.
    """
    cfg = compose_alone([f"method={method}"])
    return {
        key: OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True)
        for key in ("method", "compute")
    }


def compose_alone(overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration as the host's command would, but for the keys of the host's own.

    Args:
        overrides: Hydra's; without a `method=` it is `salt`.
    """
    # In the order of the main configs' defaults lists, whatever the order given.
    groups = [one for key in ("method=", "preset=") for one in overrides if one.startswith(key)]
    rest = [one for one in overrides if one not in groups]
    if not any(one.startswith("method=") for one in groups):
        groups.insert(0, "method=salt")
    with initialize(config_path=None, version_base=None):
        return compose(overrides=[*(f"+{one}" for one in groups), *rest])
