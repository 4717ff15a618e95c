"""`config.json` of Hugging Face's `VJEPA2Model`: our shapes from it, and it from our shapes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from salt_plugin.errors import CheckpointError
from salt_plugin.files import read_json
from salt_plugin.models.block import NORM_EPS
from salt_plugin.shapes import EncoderShape, PredictorShape

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "video_preprocessor_config.json"

# What `VJEPA2Config` takes where a file says nothing.
DEFAULTS: dict[str, Any] = {
    "patch_size": 16,
    "crop_size": 256,
    "frames_per_clip": 64,
    "tubelet_size": 2,
    "hidden_size": 1024,
    "in_chans": 3,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "mlp_ratio": 4.0,
    "pred_hidden_size": 384,
    "pred_num_attention_heads": 12,
    "pred_num_hidden_layers": 12,
    "pred_num_mask_tokens": 10,
    "pred_mlp_ratio": 4.0,
}
# Of no model: what is larger overflows where it is multiplied.
LARGEST = 2**31
# What our models always are.
FIXED: dict[str, Any] = {
    "model_type": "vjepa2",
    "hidden_act": "gelu",
    "layer_norm_eps": NORM_EPS,
    "qkv_bias": True,
}


def read_config(file: Path) -> dict[str, Any]:
    """Returns the config beside a file of weights, with the defaults of `VJEPA2Config`.

    Raises:
        CheckpointError: It is missing, of another model, or asks for what our models lack.
    """
    path = file.with_name(CONFIG_FILE)
    try:
        given = read_json(path)
        config = {**DEFAULTS, **FIXED, "model_type": None, **given}
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again") from None
    for key, expected in FIXED.items():
        if config[key] != expected:
            raise CheckpointError(
                f"{path}: {key}={config[key]!r}, and the models of this package have "
                f"{expected!r}; other V-JEPA 2 models cannot be loaded"
            )
    for key, default in DEFAULTS.items():
        kinds = (int, float) if isinstance(default, float) else int
        if not isinstance(config[key], kinds) or not 0 < config[key] < LARGEST:
            raise CheckpointError(
                f"{path}: {key}={config[key]!r}, expected a positive number as {default}"
            )
    return config


def encoder_shape(config: dict[str, Any]) -> EncoderShape:
    """Returns the shape of the encoder that a config of `VJEPA2Model` describes."""
    return EncoderShape.of(
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        int(config["hidden_size"] * config["mlp_ratio"]),
        patch_size=config["patch_size"],
        tubelet_size=config["tubelet_size"],
        in_chans=config["in_chans"],
    )


def predictor_shape(config: dict[str, Any]) -> PredictorShape:
    """Returns the shape of the predictor that a config of `VJEPA2Model` describes."""
    dim = config["pred_hidden_size"]
    return PredictorShape(
        dim,
        config["pred_num_hidden_layers"],
        config["pred_num_attention_heads"],
        int(dim * config["pred_mlp_ratio"]) / dim,
        config["pred_num_mask_tokens"],
    )


def make_config(
    encoder: EncoderShape, predictor: PredictorShape, frames: int, size: int
) -> dict[str, Any]:
    """Returns the config of a `VJEPA2Model` of our shapes.

    Args:
        encoder: Shape of the encoder.
        predictor: Shape of the predictor.
        frames: Frames of a clip.
        size: Height and width of a clip: that model counts positions in a grid of this side.
    """
    return {
        "architectures": ["VJEPA2Model"],
        **FIXED,
        "dtype": "float32",
        "patch_size": encoder.patch_size,
        "crop_size": size,
        "frames_per_clip": frames,
        "tubelet_size": encoder.tubelet_size,
        "hidden_size": encoder.embed_dim,
        "in_chans": encoder.in_chans,
        "num_attention_heads": encoder.num_heads,
        "num_hidden_layers": encoder.depth,
        "mlp_ratio": mlp_ratio(encoder.embed_dim, encoder.hidden_dim),
        "pred_hidden_size": predictor.dim,
        "pred_num_attention_heads": predictor.num_heads,
        "pred_num_hidden_layers": predictor.depth,
        "pred_num_mask_tokens": predictor.num_mask_tokens,
        "pred_mlp_ratio": mlp_ratio(predictor.dim, predictor.hidden_dim),
    }


def mlp_ratio(dim: int, hidden_dim: int) -> float:
    """Returns a ratio of which `int(dim * ratio)`, as that model has it, is the hidden width."""
    ratio = hidden_dim / dim
    return ratio if int(dim * ratio) == hidden_dim else math.nextafter(ratio, math.inf)
