"""Frozen evaluation: features of an encoder that is not trained any further, and probes on them.

The names below are resolved at first use: what only takes features waits for no library of probes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salt_plugin.evaluation.encoders import FrozenEncoder as FrozenEncoder
    from salt_plugin.evaluation.encoders import open_encoder as open_encoder
    from salt_plugin.evaluation.probes import knn_accuracy as knn_accuracy
    from salt_plugin.evaluation.probes import linear_accuracy as linear_accuracy
    from salt_plugin.evaluation.protocol import probe as probe
    from salt_plugin.evaluation.results import ProbeReport as ProbeReport
    from salt_plugin.evaluation.results import ProtocolResult as ProtocolResult

__all__ = [
    "FrozenEncoder",
    "ProbeReport",
    "ProtocolResult",
    "knn_accuracy",
    "linear_accuracy",
    "open_encoder",
    "probe",
]

_LAZY = {
    "FrozenEncoder": "encoders",
    "ProbeReport": "results",
    "ProtocolResult": "results",
    "knn_accuracy": "probes",
    "linear_accuracy": "probes",
    "open_encoder": "encoders",
    "probe": "protocol",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
