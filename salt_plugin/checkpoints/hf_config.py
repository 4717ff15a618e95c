"""`config.json` of Hugging Face's `VJEPA2Model`: our shapes from it, and it from our shapes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from salt_plugin.errors import CheckpointError
from salt_plugin.files import read_json
from salt_plugin.models.block import NORM_EPS
from salt_plugin.shapes import EncoderShape, PredictorShape

CONFIG_FILE = "config.json"
# Larger sizes are of no model, and overflow where they are multiplied.
LARGEST = 2**31
Size = Annotated[int, Field(gt=0, lt=LARGEST)]
Ratio = Annotated[float, Field(gt=0, lt=LARGEST)]


class HFConfig(BaseModel):
    """The keys of `VJEPA2Config` that shapes depend on, with its defaults."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    # Our models have no others of these four.
    model_type: Literal["vjepa2"]
    hidden_act: Literal["gelu"] = "gelu"
    layer_norm_eps: Annotated[float, Field(ge=NORM_EPS, le=NORM_EPS)] = NORM_EPS
    qkv_bias: Literal[True] = True

    patch_size: Size = 16
    crop_size: Size = 256
    frames_per_clip: Size = 64
    tubelet_size: Size = 2
    hidden_size: Size = 1024
    in_chans: Size = 3
    num_attention_heads: Size = 16
    num_hidden_layers: Size = 24
    mlp_ratio: Ratio = 4.0
    pred_hidden_size: Size = 384
    pred_num_attention_heads: Size = 12
    pred_num_hidden_layers: Size = 12
    pred_num_mask_tokens: Size = 10
    pred_mlp_ratio: Ratio = 4.0

    def encoder_shape(self) -> EncoderShape:
        """Returns the shape of the encoder.

        Raises:
            ConfigError: Our models have none such.
        """
        return EncoderShape.of(
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            int(self.hidden_size * self.mlp_ratio),
            patch_size=self.patch_size,
            tubelet_size=self.tubelet_size,
            in_chans=self.in_chans,
        )

    def predictor_shape(self) -> PredictorShape:
        """Returns the shape of the predictor.

        Raises:
            ConfigError: Our models have none such.
        """
        dim = self.pred_hidden_size
        return PredictorShape(
            dim,
            self.pred_num_hidden_layers,
            self.pred_num_attention_heads,
            int(dim * self.pred_mlp_ratio) / dim,
            self.pred_num_mask_tokens,
        )


def read_config(file: Path) -> HFConfig:
    """Returns the config beside a file of weights.

    Raises:
        CheckpointError: It is missing, of another model, or asks for what our models lack.
    """
    path = file.with_name(CONFIG_FILE)
    try:
        return HFConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path}: {key}={str(first['input'])[:120]}: {first['msg']}; only V-JEPA 2 models with "
            "the layers of this package can be loaded"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again") from None


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
    config = HFConfig(
        model_type="vjepa2",
        patch_size=encoder.patch_size,
        crop_size=size,
        frames_per_clip=frames,
        tubelet_size=encoder.tubelet_size,
        hidden_size=encoder.embed_dim,
        in_chans=encoder.in_chans,
        num_attention_heads=encoder.num_heads,
        num_hidden_layers=encoder.depth,
        mlp_ratio=_mlp_ratio(encoder.embed_dim, encoder.hidden_dim),
        pred_hidden_size=predictor.dim,
        pred_num_attention_heads=predictor.num_heads,
        pred_num_hidden_layers=predictor.depth,
        pred_num_mask_tokens=predictor.num_mask_tokens,
        pred_mlp_ratio=_mlp_ratio(predictor.dim, predictor.hidden_dim),
    )
    return {"architectures": ["VJEPA2Model"], "dtype": "float32", **config.model_dump()}


def _mlp_ratio(dim: int, hidden_dim: int) -> float:
    """Returns a ratio of which `int(dim * ratio)`, as that model has it, is the hidden width."""
    ratio = hidden_dim / dim
    return ratio if int(dim * ratio) == hidden_dim else math.nextafter(ratio, math.inf)
