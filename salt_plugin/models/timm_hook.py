"""Registers our encoders with timm when it is loaded, without loading it: that takes seconds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_REGISTRY = "salt_plugin.models.registry"


def register_with_timm() -> None:
    """Registers the encoders, at once where timm is loaded, otherwise as soon as it is."""
    if "timm" in sys.modules:
        importlib.import_module(_REGISTRY)
    else:
        sys.meta_path.insert(0, _Hook())


class _Hook(MetaPathFinder):
    """Finds timm as it is found without this, also for those who only ask whether it is there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((one for one in found if one is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(_REGISTRY)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
