"""Objects from config nodes: `_target_` names the class, the rest are its arguments."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from salt_plugin.config.suggest import suggestion
from salt_plugin.config.yaml_file import leaves
from salt_plugin.errors import ConfigError, SaltError

CLASS = "_target_"
# Environment variable: packages, beside this one, whose classes a stored configuration may name.
TRUSTED = "SALT_TRUSTED_PACKAGES"


def require_known_classes(config: dict[str, Any], file: Path) -> None:
    """Checks the classes that a stored configuration names; none is imported.

    Args:
        config: What the file holds.
        file: The file, for the message.

    Raises:
        ConfigError: One is neither of this package nor of those that the user trusts by the
            environment variable `SALT_TRUSTED_PACKAGES`, names separated by commas.
    """
    trusted = {"salt_plugin", *filter(None, os.environ.get(TRUSTED, "").split(","))}
    for key, value in leaves(config):
        if key.rpartition(".")[2] == CLASS and str(value).partition(".")[0] not in trusted:
            package = str(value).partition(".")[0][:80]
            raise ConfigError(
                f"{file}: {key}={str(value)[:120]!r} is no class of salt_plugin; a run of "
                "somebody else's could so name any code that is installed here. If it is yours, "
                f"set the environment variable {TRUSTED}={package}"
            )


def build(node: dict[str, Any], key: str, kind: type, **arguments: Any) -> Any:
    """Builds what a node describes.

    Args:
        node: Arguments, and the class under `_target_`.
        key: Where the node stands in the config, for messages.
        kind: What the class has to be, or to derive from.
        **arguments: Further arguments, which the config does not hold.

    Raises:
        ConfigError: There is no such class, it is of another kind, or it takes no such
            argument or value.
    """
    named = node.get(CLASS)
    given = {name: value for name, value in node.items() if name != CLASS}
    for name, _ in leaves(given):
        if name.rpartition(".")[2] == CLASS:
            raise ConfigError(
                f"{key}.{name}: only {key} itself names a class; give plain values to its arguments"
            )
    try:
        cls = get_class(str(named))
    except Exception as error:
        raise ConfigError(f"{key}._target_={named!r} cannot be loaded: {error}") from None
    if not issubclass(cls, kind):
        raise ConfigError(f"{key}._target_={named}: expected {kind.__name__} or a class from it")
    known = [name for name in inspect.signature(cls).parameters if name not in arguments]
    for name in given:
        if name not in known:
            raise ConfigError(f"{key}.{name}: unknown key; {suggestion(name, known)}")
    try:
        return cls(**given, **arguments)
    except SaltError:
        raise
    except Exception as error:  # a class of the user's may raise anything
        raise ConfigError(f"{key}: {error}") from None
