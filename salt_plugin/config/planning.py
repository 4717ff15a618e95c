"""Composing our configurations without torch and without the host, for planning."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize
from hydra.errors import HydraException
from omegaconf import DictConfig

from salt_plugin.config.command_line import composition_error
from salt_plugin.config.load import load_config
from salt_plugin.config.schema import RunConfig
from salt_plugin.errors import ConfigError


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
