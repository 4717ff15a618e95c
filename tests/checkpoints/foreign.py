"""V-JEPA 2 models as others write them, small and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import VJEPA2Config, VJEPA2Model

from salt_plugin.shapes import Grid

# Heads of 24 and 16 channels (with and without channels that are not rotated) and of 6.
SIZES: dict[str, dict[str, Any]] = {
    "square": {
        "hidden_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "patch_size": 8,
        "crop_size": 32,
        "frames_per_clip": 8,
        "pred_hidden_size": 32,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
    },
    "odd ratio": {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "mlp_ratio": 48 / 11,
        "patch_size": 4,
        "tubelet_size": 1,
        "crop_size": 16,
        "frames_per_clip": 4,
        "pred_hidden_size": 36,
        "pred_num_attention_heads": 6,
        "pred_num_hidden_layers": 2,
        "pred_num_mask_tokens": 3,
        "pred_mlp_ratio": 2.5,
    },
    "grey": {
        "hidden_size": 12,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "in_chans": 1,
        "patch_size": 8,
        "tubelet_size": 4,
        "crop_size": 48,
        "frames_per_clip": 4,
        "pred_hidden_size": 12,
        "pred_num_attention_heads": 1,
        "pred_num_hidden_layers": 1,
        "pred_num_mask_tokens": 2,
    },
}


def hf_model(size: str = "square", **changes: Any) -> VJEPA2Model:
    """Returns a model whose every parameter is random, biases and norms too."""
    torch.manual_seed(0)
    model = VJEPA2Model(VJEPA2Config(**{**SIZES[size], **changes})).eval().requires_grad_(False)
    for value in model.parameters():
        value += 0.1 * torch.randn_like(value)
    return model


def hf_folder(folder: Path, size: str = "square", **changes: Any) -> VJEPA2Model:
    """Writes such a model as transformers does, and returns it."""
    model = hf_model(size, **changes)
    model.save_pretrained(folder)
    return model


def hf_encode(model: VJEPA2Model, clip_bcthw: Tensor, grid: Grid, indices_bk: Tensor) -> Tensor:
    """Encodes the tokens with these indices of a grid, each at its place in that model's grid."""
    x = model.encoder.embeddings(clip_bcthw.transpose(1, 2))
    x = x.gather(1, indices_bk[..., None].expand(-1, -1, x.shape[-1]))
    places = hf_places(model, grid, indices_bk)
    for layer in model.encoder.layer:
        x = layer(x, places)[0]
    return model.encoder.layernorm(x)


def hf_places(model: VJEPA2Model, grid: Grid, indices_bk: Tensor) -> Tensor:
    """Returns the indices in that model's square grid, which is at least as wide and high."""
    _, height, width = grid
    side = model.config.crop_size // model.config.patch_size
    t, h, w = indices_bk // (height * width), indices_bk // width % height, indices_bk % width
    return (t * side + h) * side + w


def vjepa2_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Returns a state dict of ours as V-JEPA 2 saves it, wrapped twice."""
    return {f"module.backbone.{name}": value for name, value in model.state_dict().items()}
