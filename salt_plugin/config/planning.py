"""The defaults for videos that planning needs, without torch and without the host."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize
from omegaconf import OmegaConf


def video_defaults(method: str) -> dict[str, Any]:
    """Returns the nodes `method` and `compute` with the defaults for videos.

    Args:
        method: Name of a method.
    """
    overrides = [f"+method={method}", "input_dir=VIDEOS"]
    with initialize(config_path=None, version_base=None):
        cfg = compose(overrides=overrides)
    return {
        key: OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True)
        for key in ("method", "compute")
    }
