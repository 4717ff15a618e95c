"""Video transforms, shaped and named as the host's image transforms."""

from salt_plugin.batch import Normalization
from salt_plugin.transforms.salt_transform import SALTEvalTransform, SALTTransform

__all__ = ["Normalization", "SALTEvalTransform", "SALTTransform"]
