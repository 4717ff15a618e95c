"""YAML files as plain values."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from salt_plugin.errors import ConfigError
from salt_plugin.files import require_regular

# Nested aliases multiply the content; eight make at most 19 of one part.
MAX_ALIASES = 8
REFERENCE = re.compile(r"(?<!\\)\$\{")


def read_yaml(file: Path, references: bool = False) -> dict[str, Any]:
    """Returns the keys and values of a file, which somebody else may have written.

    It is read as data: no tag makes an object, and no `${oc.env:NAME}` is looked up.

    Args:
        file: The file.
        references: Whether values may hold `${...}`, for files that run commands of the user's
            anyhow.

    Raises:
        ConfigError: It cannot be read, holds something else, or refers to the environment.
    """
    try:
        require_regular(file)
        text = file.read_text(encoding="utf-8")
        aliases = [one for one in yaml.parse(text) if isinstance(one, yaml.AliasEvent)]
        if len(aliases) > MAX_ALIASES:
            raise ValueError(f"expected at most {MAX_ALIASES} aliases (*name)")
        node = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    except (OmegaConfBaseException, AttributeError, KeyError) as error:
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(node, dict):
        raise ConfigError(f"{file}: expected keys and values, e.g. `train: train.csv`")
    for key, value in leaves(node):
        if not references and isinstance(value, str) and REFERENCE.search(value):
            raise ConfigError(
                f"{file}: {key} is {value[:120]!r}: expected a value; what ${{...}} refers to, "
                "such as the environment, is not looked up for a file. Write the value"
            )
    return {str(key): value for key, value in node.items()}


def read_changes(changes: Sequence[str], example: str) -> dict[str, Any]:
    """Returns the keys and values of changes to a file.

    Args:
        changes: From the command line: dotted keys, and values in YAML.
        example: One, for the message.

    Raises:
        ConfigError: One is no `key=value`, or its value no YAML.
    """
    merged = OmegaConf.create()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"{change!r}: expected key=value, e.g. {example}")
        try:
            merged.merge_with_dotlist([change])
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            text = shlex.quote(f"{key}={json.dumps(value, ensure_ascii=False)}")
            raise ConfigError(
                f"{change}: its value is no YAML ({str(error).splitlines()[0]}); to give {key} "
                f"this text, quote it: {text}"
            ) from None
    node = OmegaConf.to_container(merged)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def first_line(error: OmegaConfBaseException) -> str:
    """Returns what is wrong, without OmegaConf's account of where."""
    return (error.msg or str(error)).splitlines()[0]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values in dictionaries and lists, each with its dotted key."""
    if isinstance(node, dict):
        inner: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list):
        inner = enumerate(node)
    else:
        yield key, node
        return
    for name, value in inner:
        yield from leaves(value, f"{key}.{name}" if key else str(name))
