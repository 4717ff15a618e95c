"""An image model of timm, applied to the frames of a clip: a control without any motion."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from salt_plugin.checkpoints import read_safetensors, read_torch_file
from salt_plugin.errors import CheckpointError, ConfigError

TUBELET = 2  # frames, as a tubelet of V-JEPA spans


class ImageFrames(nn.Module):
    """Encodes frames one by one and pools their tokens to the grid of a video encoder.

    Prefix tokens (class, registers) are dropped; the frames of a tubelet are averaged.

    Args:
        name: Of a model of timm.
        size: Height and width of the frames in pixels. Models that take `img_size` are built for
            it, and the positions in a file are resampled by timm; the others take any size.
        file: Weights of that model, safetensors or of `torch.save`; None leaves it random.
        tubelet: Frames in a row that are averaged.

    Raises:
        ConfigError: timm has no such model, or it cannot be built for this size.
        CheckpointError: The file cannot be read, holds code, or does not fit the model.
    """

    def __init__(
        self, name: str, size: int, file: Path | None = None, tubelet: int = TUBELET
    ) -> None:
        import timm  # seconds

        super().__init__()
        if not timm.is_model(name):
            raise ConfigError(
                f"timm:{name}: timm has no model of this name; see timm.list_models()"
            )
        if file is not None and not file.is_file():
            raise CheckpointError(f"timm:{name}:{file}: the file does not exist")
        if file is not None:  # before timm opens it
            (read_safetensors if file.suffix == ".safetensors" else read_torch_file)(file)
        given = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}} if file else {}
        try:
            try:
                self.model = timm.create_model(name, num_classes=0, img_size=size, **given)
            except TypeError:
                self.model = timm.create_model(name, num_classes=0, **given)
        except AssertionError as error:
            raise ConfigError(f"timm:{name} cannot be built for {size} pixels: {error}") from None
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            raise CheckpointError(f"timm:{name}: {error}") from None
        self.embed_dim: int = self.model.num_features
        self.tubelet_size = tubelet
        embed = getattr(self.model, "patch_embed", None)
        self.patch_size: int = getattr(embed, "patch_size", (1, 1))[0]
        self.mean = list(self.model.pretrained_cfg["mean"])
        self.std = list(self.model.pretrained_cfg["std"])

    def forward(self, clip_bcthw: Tensor) -> Tensor:
        """Encodes clips [B, C, T, H, W] into tokens [B, T / tubelet * n, D], n a frame."""
        B, _, T, _, _ = clip_bcthw.shape
        x = self.model.forward_features(clip_bcthw.transpose(1, 2).flatten(0, 1))
        if x.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            x = x.flatten(1, 2) if channels_last else x.flatten(2).transpose(1, 2)
        else:
            x = x[:, getattr(self.model, "num_prefix_tokens", 0) :]
        t = self.tubelet_size
        return x.unflatten(0, (B, T // t, t)).mean(2).flatten(1, 2)
