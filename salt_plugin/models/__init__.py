"""Encoder, predictor and frozen teacher; importing this registers the encoders with timm."""

from salt_plugin.models.classifier import VideoClassifier
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.head import Head
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher, fingerprint
from salt_plugin.models.timm_hook import register_with_timm
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape, PredictorShape

__all__ = [
    "ENCODER_SIZES",
    "EncoderShape",
    "FrozenTeacher",
    "Head",
    "Predictor",
    "PredictorShape",
    "VideoClassifier",
    "VideoEncoder",
    "fingerprint",
]

register_with_timm()
