"""The encoders under timm's names: `timm.create_model("salt_vit_large")`."""

from __future__ import annotations

from typing import Any

from timm.models import register_model

from salt_plugin.errors import CheckpointError, ConfigError
from salt_plugin.models.block import INIT_STD
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape


def _register(size: str) -> None:
    def create(
        pretrained: bool = False,
        num_classes: int = 0,
        drop_path_rate: float = 0.0,
        init_std: float = INIT_STD,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **changes: Any,
    ) -> VideoEncoder:
        if pretrained:
            raise CheckpointError(
                f"salt_{size}: there are no public weights; train it, or load yours with "
                "salt_plugin.load_encoder(path)"
            )
        if num_classes:
            raise ConfigError(
                f"salt_{size}: num_classes={num_classes}: expected 0, for the encoders have no "
                "classifier; put one on their tokens [B, N, D], or use `salt probe`"
            )
        return VideoEncoder(EncoderShape.named(size, **changes), drop_path_rate, init_std)

    create.__name__ = create.__qualname__ = f"salt_{size}"
    create.__doc__ = f"The video encoder {size}; see `VideoEncoder`."
    globals()[create.__name__] = register_model(create)


for _size in ENCODER_SIZES:
    _register(_size)
