"""Frozen evaluation: features of an encoder that is not trained any further, and probes on them."""

from salt_plugin.evaluation.features import mean_features
from salt_plugin.evaluation.probes import knn_accuracy, linear_accuracy

__all__ = ["knn_accuracy", "linear_accuracy", "mean_features"]
