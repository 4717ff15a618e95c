"""Composing our configurations without torch and without the host, for planning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize
from omegaconf import DictConfig, OmegaConf


def video_defaults(method: str) -> dict[str, Any]:
    """Returns the nodes `method` and `compute` with the defaults for videos.

    Args:
        method: Name of a method.
    """
    cfg = compose_alone([f"method={method}", "input_dir=VIDEOS"])
    return {
        key: OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True)
        for key in ("method", "compute")
    }


def compose_alone(overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration as the host's command would, but for the keys of the host's own.

    Args:
        overrides: Hydra's; without a `method=` it is `salt`.
    """
    rest = list(overrides)
    if not any(override.startswith("method=") for override in rest):
        rest.insert(0, "method=salt")
    added = [f"+{one}" if one.startswith("method=") else one for one in rest]
    with initialize(config_path=None, version_base=None):
        return compose(overrides=added)
