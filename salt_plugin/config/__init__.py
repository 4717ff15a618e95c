"""Configuration: types, checks, and objects built from their nodes."""

from salt_plugin.config.evaluation import (
    ProbeConfig,
    clip_seen,
    probe_config,
    probe_config_for,
)
from salt_plugin.config.load import compose, load_config, require_input
from salt_plugin.config.nodes import build, require_known_classes
from salt_plugin.config.schema import (
    MethodConfig,
    PixelTeacherConfig,
    RunConfig,
    SALTConfig,
    VJEPAConfig,
)
from salt_plugin.config.yaml_file import read_yaml

__all__ = [
    "MethodConfig",
    "PixelTeacherConfig",
    "ProbeConfig",
    "RunConfig",
    "SALTConfig",
    "VJEPAConfig",
    "build",
    "clip_seen",
    "compose",
    "load_config",
    "probe_config",
    "probe_config_for",
    "read_yaml",
    "require_input",
    "require_known_classes",
]
