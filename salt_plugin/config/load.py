"""From what Hydra composed to a checked `RunConfig`."""

from __future__ import annotations

import warnings
from dataclasses import fields
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from salt_plugin.conf_folder import is_lightlys, is_ours
from salt_plugin.config import registry
from salt_plugin.config.application import absolute, running_application
from salt_plugin.config.checks import check_values
from salt_plugin.config.evaluation import probe_config
from salt_plugin.config.schema import RunConfig
from salt_plugin.config.suggest import suggestion
from salt_plugin.config.typed import typed
from salt_plugin.config.yaml_file import first_line
from salt_plugin.errors import ConfigError


def compose(overrides: list[str]) -> DictConfig:
    """Composes the host's config with one of our methods, as its command would.

    Args:
        overrides: Hydra overrides, e.g. ``["method=salt", "method.encoder=vit_tiny"]``.
    """
    with initialize_config_module("lightly.cli.config", version_base=None):
        return hydra_compose("config", overrides)


def load_config(cfg: DictConfig, foreign: bool | None = None) -> RunConfig:
    """Checks a composed config: every key known, every value of its type and in range.

    Args:
        cfg: A config with a `method` node, as Hydra composes it.
        foreign: Whether it may have top-level keys of its own, which are not looked at. None: yes
            in Hydra applications beside Lightly's and ours; outside of any, where the config does
            not have all of Lightly's keys.

    Raises:
        ConfigError: Names the key, what was found, and what was probably meant.
    """
    try:
        raw: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {first_line(error)}") from None
    spec = registry.get((raw.get("method") or {}).get("name"))
    ours = {field.name for field in fields(RunConfig)}
    if not (_is_foreign(raw) if foreign is None else foreign):
        known = ours | _host_defaults().keys()
        for key in raw.keys() - known:
            raise ConfigError(f"{key}: unknown key; {suggestion(key, known)}")
        _warn_of_unused(raw, ours)
    config: RunConfig = typed(RunConfig, {key: raw[key] for key in ours if key in raw}, "")
    config.method = typed(spec.config, raw["method"], "method.")
    check_values(config)
    _check_probe(config.method.probe)
    return config


def _is_foreign(raw: dict[str, Any]) -> bool:
    hydra = running_application()
    if hydra is None:
        return not _host_defaults().keys() <= raw.keys()
    sources = hydra.runtime.config_sources
    mains = [source.path for source in sources if source.provider == "main"]
    return not any(is_lightlys(path) or is_ours(path) for path in mains)


def _check_probe(data: str | None) -> None:
    if data is not None:
        try:
            probe_config(absolute(data) if data.endswith((".yaml", ".yml")) else data)
        except ConfigError as error:
            raise ConfigError(f"method.probe={data}: expected a set: {error}") from None


def _warn_of_unused(raw: dict[str, Any], ours: set[str]) -> None:
    for key, default in _host_defaults().items():
        if key not in ours and key in raw and raw[key] != default:
            warnings.warn(
                f"{key}: changed, but our methods do not use this key of the host", stacklevel=3
            )


@lru_cache(maxsize=1)
def _host_defaults() -> dict[str, Any]:
    # Found without importing the host, which imports torch.
    spec = find_spec("lightly")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "cli" / "config" / "config.yaml").read_text()
    defaults: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(text)))  # type: ignore[assignment]
    del defaults["hydra"]
    return defaults
