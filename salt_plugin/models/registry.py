"""The encoders under timm's names: `timm.create_model("salt_vit_large")`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.models import (
    adapt_input_conv,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.models.block import INIT_STD
from salt_plugin.models.classifier import VideoClassifier
from salt_plugin.shapes import ATTENTIVE_DEPTH, ENCODER_SIZES, EncoderShape

PRUNED = ("blocks.", "norm.", "attn_pool.", "head.")
default_cfgs = generate_default_cfgs(
    {
        f"salt_{size}": {
            "num_classes": 0,
            "input_size": (3, 224, 224),
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for size in ENCODER_SIZES
    }
)


class VideoFeatures(FeatureGetterNet):
    """`create_model(..., features_only=True)`: clips to a list of [B, D, t, h, w].

    It also loads the weights of a whole encoder, of which it leaves out what it has not.
    """

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.register_load_state_dict_pre_hook(_of_encoder)


def _of_encoder(features: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    if any(name.startswith(prefix + "model.") for name in state):
        return
    own = features.state_dict()
    for name in list(state):
        value, inner = state.pop(name), f"model.{name}"
        if inner in own or not name.startswith(PRUNED):
            state[inner] = value


def _model(
    size: str,
    num_classes: int = 0,
    global_pool: str = "avg",
    pool_depth: int = ATTENTIVE_DEPTH,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    init_std: float = INIT_STD,
    img_size: int | Sequence[int] | None = None,
    num_frames: int | None = None,
    **changes: Any,
) -> VideoClassifier:
    """Builds a model; positions are rotary, so `img_size` and `num_frames` are only checked."""
    shape = EncoderShape.named(size, **changes)
    sides = [img_size] if img_size is None or isinstance(img_size, int) else img_size
    for key, length, unit in (
        *(("img_size", side, shape.patch_size) for side in sides),
        ("num_frames", num_frames, shape.tubelet_size),
    ):
        if length is not None and (length < unit or length % unit):
            raise ConfigError(
                f"salt_{size}: {key}={length}: the tubelets are {unit} long there; use "
                f"{max(unit, round(length / unit) * unit)}"
            )
    return VideoClassifier(
        shape,
        drop_path_rate,
        init_std,
        num_classes=num_classes,
        global_pool=global_pool,
        pool_depth=pool_depth,
        drop_rate=drop_rate,
    )


def _other_colours(state: dict[str, Tensor], model: VideoClassifier) -> dict[str, Tensor]:
    """Adapts weights of other colour channels to the model's, as timm does for images."""
    name = "patch_embed.proj.weight"
    kernel_dcthw = state[name]
    if kernel_dcthw.shape[1] != model.in_chans:
        flat_dcnw = adapt_input_conv(model.in_chans, kernel_dcthw.flatten(2, 3))
        state[name] = flat_dcnw.unflatten(2, kernel_dcthw.shape[2:4])
    return state


def _register(size: str) -> None:
    name = f"salt_{size}"

    def create(pretrained: bool = False, **given: Any) -> Any:
        if pretrained and not (given.get("pretrained_cfg") or given.get("pretrained_cfg_overlay")):
            raise CheckpointError(
                f"{name}: there are no public weights; train it, or give yours as "
                "checkpoint_path=FILE, or load them with salt_plugin.load_encoder(path)"
            )
        return build_model_with_cfg(
            partial(_model, size),
            name,
            pretrained,
            pretrained_filter_fn=_other_colours,
            feature_cfg={"feature_cls": VideoFeatures, "out_indices": 3},
            **given,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"The video encoder {size} under timm's interface; see `VideoClassifier`."
    globals()[name] = register_model(create)


for _size in ENCODER_SIZES:
    _register(_size)
