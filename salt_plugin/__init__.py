"""SALT video pretraining as a method of Lightly.

Importing this package loads no torch, so that launching and planning start fast; the names
below are resolved at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salt_plugin.checkpoints import load_encoder as load_encoder
    from salt_plugin.checkpoints import model_card as model_card
    from salt_plugin.checkpoints import save_encoder_folder as save_encoder_folder
    from salt_plugin.features.embedding import embed as embed

__version__ = "0.1.0"
__all__ = ["__version__", "embed", "load_encoder"]

_LAZY = {
    "embed": "salt_plugin.features.embedding",
    "load_encoder": "salt_plugin.checkpoints",
    "model_card": "salt_plugin.checkpoints",
    "save_encoder_folder": "salt_plugin.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
