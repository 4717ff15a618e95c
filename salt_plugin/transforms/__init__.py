"""Video transforms, shaped and named as the host's image transforms."""

from salt_plugin.batch import Normalization
from salt_plugin.transforms.multi_view import MultiViewTransform
from salt_plugin.transforms.salt_transform import SALTEvalTransform, SALTTransform

__all__ = ["MultiViewTransform", "Normalization", "SALTEvalTransform", "SALTTransform"]
