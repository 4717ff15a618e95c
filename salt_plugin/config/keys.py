"""The keys of a configuration, one by one, as the classes state them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from salt_plugin.config import registry
from salt_plugin.config.schema import RunConfig
from salt_plugin.config.values import ALIKE, COMPARED, OPERATIONAL


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
        name: With dots.
        kind: Its type, with its range.
        owner: The class whose field it is; the docstring says what it means.
        marks: Some of `values.OPERATIONAL`, `values.COMPARED` and `values.ALIKE`.
    """

    name: str
    kind: Any
    owner: type
    marks: frozenset[str]


def keys_of(schema: type, prefix: str = "") -> Iterator[Key]:
    """Yields the keys of a class, those of its nodes included, in their order.

    Args:
        schema: A dataclass.
        prefix: Stands before their names.
    """
    kinds = get_type_hints(schema, include_extras=True)
    for field in fields(schema):
        name, kind = prefix + field.name, kinds[field.name]
        if is_dataclass(kind):
            yield from keys_of(kind, f"{name}.")  # type: ignore[arg-type]
        else:
            marks = {OPERATIONAL, COMPARED, ALIKE}.intersection(_strings(kind))
            yield Key(name, kind, schema, frozenset(marks))


def _strings(kind: Any) -> list[str]:
    return [one for one in getattr(kind, "__metadata__", ()) if isinstance(one, str)]


def run_keys(method: str) -> list[Key]:
    """Returns the keys of a run of a method, those of the host first."""
    host = [one for one in keys_of(RunConfig) if one.name != "method"]
    return [*host, *keys_of(registry.get(method).config, "method.")]


def marked(mark: str) -> set[str]:
    """Returns the names of the keys of runs that bear a mark, of whatever method."""
    return {one.name for name in registry.METHODS for one in run_keys(name) if mark in one.marks}


def documented(cls: type) -> dict[str, str]:
    """Returns what the docstring of a class says of its arguments or attributes, by name."""
    doc = inspect.getdoc(cls) or ""
    part = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    entries = re.finditer(
        r"^    (\w+):((?:.*\n?)(?: {8}.*\n?)*)", part[1] if part else "", re.MULTILINE
    )
    return {
        found[1]: " ".join(found[2].replace("``", "`").split()).removesuffix(".")
        for found in entries
    }
