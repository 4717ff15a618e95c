"""Objects from config nodes: `_target_` names the class, the rest are its arguments."""

from __future__ import annotations

import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate

from salt_plugin.config.suggest import suggestion
from salt_plugin.errors import ConfigError, SaltError


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
    target = node.get("_target_")
    try:
        cls = get_class(str(target))
    except Exception as error:
        raise ConfigError(f"{key}._target_={target!r} cannot be loaded: {error}") from None
    if not issubclass(cls, kind):
        raise ConfigError(f"{key}._target_={target}: expected {kind.__name__} or a class from it")
    known = [name for name in inspect.signature(cls).parameters if name not in arguments]
    for name in node:
        if name != "_target_" and name not in known:
            raise ConfigError(f"{key}.{name}: unknown key; {suggestion(name, known)}")
    try:
        return instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, SaltError):
            raise error.__cause__ from None
        raise ConfigError(f"{key}: {error.__cause__ or error}") from None
