"""Frozen evaluation: features of an encoder that is not trained any further, and probes on them."""

from salt_plugin.evaluation.encoders import FrozenEncoder, open_encoder
from salt_plugin.evaluation.probes import knn_accuracy, linear_accuracy
from salt_plugin.evaluation.protocol import probe
from salt_plugin.evaluation.results import ProbeReport, ProtocolResult

__all__ = [
    "FrozenEncoder",
    "ProbeReport",
    "ProtocolResult",
    "knn_accuracy",
    "linear_accuracy",
    "open_encoder",
    "probe",
]
