"""Composing our configurations without torch and without the host, for planning."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from salt_plugin.conf_folder import PLAN_CONFIG
from salt_plugin.config.command_line import composition_error
from salt_plugin.config.load import load_config
from salt_plugin.config.schema import RunConfig
from salt_plugin.errors import ConfigError


def compose_alone(overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration as the host's command would, but for the keys of the host's own.

    Args:
        overrides: Hydra's; without a `method=` it is `salt`, or that of the preset.
    """
    with initialize_config_dir(PLAN_CONFIG, version_base=None):
        return compose("config", list(overrides))


def load_alone(overrides: Sequence[str]) -> RunConfig:
    """Returns the configuration of a training command, checked as `load_config` does.

    Args:
        overrides: As in `compose_alone`, that Hydra can read (`command_line.check_overrides`).

    Raises:
        ConfigError: They name what is not there, or a value cannot work.
    """
    try:
        # What these add at the top level reaches `salt train`, which knows its keys.
        return load_config(compose_alone(overrides), foreign=False)
    except HydraException as error:
        raise ConfigError(composition_error(error)) from None
