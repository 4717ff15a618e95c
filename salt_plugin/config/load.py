"""From what Hydra composed to a checked `RunConfig`."""

from __future__ import annotations

import warnings
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, get_type_hints

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from salt_plugin.config.checks import check_values
from salt_plugin.config.schema import METHOD_CONFIGS, RunConfig
from salt_plugin.config.suggest import suggestion
from salt_plugin.errors import ConfigError


def compose(overrides: list[str]) -> DictConfig:
    """Composes the host's config with one of our methods, as its command would.

    Args:
        overrides: Hydra overrides, e.g. ``["method=salt", "method.encoder=vit_tiny"]``.
    """
    with initialize_config_module("lightly.cli.config", version_base=None):
        return hydra_compose("config", overrides)


def load_config(cfg: DictConfig) -> RunConfig:
    """Checks a composed config: every key known, every value of its type and in range.

    Args:
        cfg: The host's config with a `method` node, as Hydra composes it.

    Raises:
        ConfigError: Names the key, what was found, and what was probably meant.
    """
    try:
        raw: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {_first_line(error)}") from None
    name = (raw.get("method") or {}).get("name")
    if not isinstance(name, str) or name not in METHOD_CONFIGS:
        raise ConfigError(
            f"method.name={name!r} is no method; {suggestion(str(name), METHOD_CONFIGS)}"
        )
    ours = {field.name for field in fields(RunConfig)}
    for key in raw.keys() - ours - _host_defaults().keys():
        raise ConfigError(f"{key}: unknown key; {suggestion(key, ours | _host_defaults().keys())}")
    _warn_of_unused(raw, ours)
    config: RunConfig = _typed(RunConfig, {key: raw[key] for key in ours if key in raw}, "")
    config.method = _typed(METHOD_CONFIGS[name], raw["method"], "method.")
    check_values(config)
    return config


def _typed(schema: type, values: dict[str, Any], prefix: str) -> Any:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
    except OmegaConfBaseException as error:
        full_key = error.full_key or ""
        known = _known_keys(schema, full_key)
        leaf = full_key.rpartition(".")[2].partition("[")[0]
        if leaf not in known:
            found = f"unknown key; {suggestion(leaf, known)}"
        else:
            found = _first_line(error)
        raise ConfigError(f"{prefix}{full_key}: {found}") from None
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(
            f"{prefix}{missing[0]}: missing; select one of our methods, e.g. method=salt"
        )
    return OmegaConf.to_object(merged)


def _first_line(error: OmegaConfBaseException) -> str:
    return (error.msg or str(error)).splitlines()[0]


def _known_keys(schema: type, full_key: str) -> list[str]:
    """Names of the fields beside the one that a dotted key ends in."""
    for part in full_key.split(".")[:-1]:
        inner = get_type_hints(schema).get(part)
        if not is_dataclass(inner):
            break
        schema = inner  # type: ignore[assignment]
    return [field.name for field in fields(schema)]


def _warn_of_unused(raw: dict[str, Any], ours: set[str]) -> None:
    for key, default in _host_defaults().items():
        if key not in ours and key in raw and raw[key] != default:
            warnings.warn(
                f"{key}: changed, but our methods do not use this key of the host", stacklevel=3
            )


@lru_cache(maxsize=1)
def _host_defaults() -> dict[str, Any]:
    text = (resources.files("lightly.cli.config") / "config.yaml").read_text()
    defaults: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(text)))  # type: ignore[assignment]
    del defaults["hydra"]
    return defaults
