"""The encoders under timm's names: `timm.create_model("salt_vit_large")`."""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.errors import CheckpointError
from salt_plugin.models.block import INIT_STD
from salt_plugin.models.classifier import VideoClassifier
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape

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


def _model(
    size: str,
    num_classes: int = 0,
    global_pool: str = "avg",
    pool_depth: int = 4,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    init_std: float = INIT_STD,
    **changes: Any,
) -> VideoClassifier:
    return VideoClassifier(
        EncoderShape.named(size, **changes),
        drop_path_rate,
        init_std,
        num_classes=num_classes,
        global_pool=global_pool,
        pool_depth=pool_depth,
        drop_rate=drop_rate,
    )


def _register(size: str) -> None:
    name = f"salt_{size}"

    def create(pretrained: bool = False, **given: Any) -> VideoClassifier:
        if pretrained and not (given.get("pretrained_cfg") or given.get("pretrained_cfg_overlay")):
            raise CheckpointError(
                f"{name}: there are no public weights; train it, or give yours as "
                "checkpoint_path=FILE, or load them with salt_plugin.load_encoder(path)"
            )
        return build_model_with_cfg(partial(_model, size), name, pretrained, **given)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"The video encoder {size} under timm's interface; see `VideoClassifier`."
    globals()[name] = register_model(create)


for _size in ENCODER_SIZES:
    _register(_size)
