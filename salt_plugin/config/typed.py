"""Plain values into a typed configuration, with the key named where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from salt_plugin.config.suggest import suggestion
from salt_plugin.config.values import expected
from salt_plugin.config.yaml_file import leaves
from salt_plugin.errors import ConfigError

# Reported in this order: a key that is misspelt is also missing.
UNKNOWN = ("unexpected_keyword_argument", "invalid_key")
MISSING = ("missing",)
OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")

SHOWN = 200


def typed(schema: type, values: Mapping[str, Any], prefix: str) -> Any:
    """Returns an object of a class of keys: every key known, every value of its type and in range.

    Args:
        schema: The class, e.g. `RunConfig`.
        values: Its fields.
        prefix: Stands before the keys in messages.

    Raises:
        ConfigError: Names the key, what was found, and what was expected or probably meant.
    """
    for name, value in leaves(values):
        if value == "???":
            raise ConfigError(f"{prefix}{name}: missing; give it a value")
    try:
        return TypeAdapter(schema).validate_python(dict(values))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    first = min(errors, key=lambda one: (one["type"] not in UNKNOWN, one["type"] not in MISSING))
    raise ConfigError(prefix + _line(schema, values, first))


def _line(schema: type, values: Mapping[str, Any], error: ErrorDetails) -> str:
    """Returns one line about a key: its dotted name, and what is wrong."""
    kind: Any = schema
    found: Any = values
    key: list[str] = []
    known: list[str] = []
    for part in error["loc"]:
        if get_origin(kind) is UnionType:  # of `X | None`, the class of keys
            kind = next(filter(is_dataclass, get_args(kind)), kind)
        if is_dataclass(kind):
            known = [field.name for field in fields(kind)]
            kind = get_type_hints(kind, include_extras=True).get(str(part))
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            break  # within a value: it is shown as a whole
        found = found.get(part) if isinstance(found, Mapping) else None
        key.append(str(part))
    name = ".".join(key)
    if error["type"] in UNKNOWN:
        return f"{name}: unknown key; {suggestion(key[-1], known)}"
    if error["type"] in MISSING:
        return f"{name}: missing; select one of our methods, e.g. method=salt"
    wanted = expected(kind, with_noun=error["type"] not in OUT_OF_RANGE)
    shown = " ".join(str(found)[:SHOWN].splitlines())
    return f"{name}={shown}: expected {wanted}"
