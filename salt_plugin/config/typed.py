"""Plain values into a typed configuration, with the key named where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from salt_plugin.config.suggest import suggestion
from salt_plugin.errors import ConfigError


def typed(schema: type, values: Mapping[str, Any], prefix: str) -> Any:
    """Returns an object of a dataclass, every key known and every value of its type.

    Args:
        schema: The dataclass.
        values: Its fields.
        prefix: Stands before the keys in messages.

    Raises:
        ConfigError: Names the key, what was found, and what was probably meant.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), dict(values))
    except OmegaConfBaseException as error:
        full_key = error.full_key or ""
        known = _known_keys(schema, full_key)
        leaf = full_key.rpartition(".")[2].partition("[")[0]
        if leaf not in known:
            found = f"unknown key; {suggestion(leaf, known)}"
        else:
            found = first_line(error)
        raise ConfigError(f"{prefix}{full_key}: {found}") from None
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(
            f"{prefix}{missing[0]}: missing; select one of our methods, e.g. method=salt"
        )
    return OmegaConf.to_object(merged)


def first_line(error: OmegaConfBaseException) -> str:
    """Returns what is wrong, without OmegaConf's account of where."""
    return (error.msg or str(error)).splitlines()[0]


def _known_keys(schema: type, full_key: str) -> list[str]:
    """Names of the fields beside the one that a dotted key ends in."""
    parts = iter(full_key.split(".")[:-1])
    for part in parts:
        inner = get_type_hints(schema).get(part)
        if get_origin(inner) is dict:
            next(parts, None)  # the key in the dictionary: of its values all are alike
            inner = get_args(inner)[1]
        if not is_dataclass(inner):
            break
        schema = inner  # type: ignore[assignment]
    return [field.name for field in fields(schema)]
