"""A plain training step assembled from Hugging Face's VJEPA2 modules, for `step.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import VJEPA2Config, VJEPA2Model
from transformers.models.vjepa2.modeling_vjepa2 import apply_masks

from salt_plugin.batch import Batch
from salt_plugin.shapes import EncoderShape, PredictorShape


class ReferenceStep(nn.Module):
    """Every mask set a pass of its own, with layers as they are published.

    Args:
        shape: Of student and teacher.
        predictor: Of the predictor.
        frames: Frames of a clip.
        size: Height and width of a clip.
        pixels: Predict pixels (stage 1) instead of a teacher's latents (stage 2).
    """

    def __init__(
        self, shape: EncoderShape, predictor: PredictorShape, frames: int, size: int, pixels: bool
    ) -> None:
        super().__init__()
        config = VJEPA2Config(
            patch_size=shape.patch_size,
            crop_size=size,
            frames_per_clip=frames,
            tubelet_size=shape.tubelet_size,
            hidden_size=shape.embed_dim,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.num_heads,
            mlp_ratio=shape.mlp_ratio,
            pred_hidden_size=predictor.dim,
            pred_num_hidden_layers=predictor.depth,
            pred_num_attention_heads=predictor.num_heads,
            pred_num_mask_tokens=predictor.num_mask_tokens,
            attn_implementation="sdpa",
        )
        student = VJEPA2Model(config)
        self.shape = shape
        self.encoder, self.predictor = student.encoder, student.predictor
        self.teacher = None if pixels else VJEPA2Model(config).encoder.requires_grad_(False)
        if pixels:
            self.predictor.proj = nn.Linear(predictor.dim, shape.patch_dim)

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        video = batch.clips.transpose(1, 2)
        with torch.no_grad():
            wanted = self._pixels(batch.clips) if self.teacher is None else self._latents(video)
        embedded = self.encoder.embeddings(video)
        losses = []
        for context, target, number, _ in batch.masks:
            x = apply_masks(embedded, [context])
            for layer in self.encoder.layer:
                x = layer(x, context)[0]
            predicted = self._predict(self.encoder.layernorm(x), context, target, number)
            difference = predicted - apply_masks(wanted, [target])
            losses.append(difference.square() if self.teacher is None else difference.abs())
        return torch.stack([loss.mean() for loss in losses]).mean()

    def trained(self) -> list[nn.Parameter]:
        """Returns what the optimiser sees."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _latents(self, video: Tensor) -> Tensor:
        latents = self.teacher(video).last_hidden_state
        return F.layer_norm(latents, latents.shape[-1:])

    def _pixels(self, clips: Tensor) -> Tensor:
        sides = (self.shape.tubelet_size, self.shape.patch_size, self.shape.patch_size)
        cut = clips
        for axis, side in enumerate(sides, start=2):
            cut = cut.unfold(axis, side, side)
        B, _, t, h, w = cut.shape[:5]
        patches = cut.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(B, t * h * w, 3, -1)
        return (
            (patches - patches.mean(-1, True)) / (patches.std(-1, keepdim=True) + 1e-6)
        ).flatten(2)

    def _predict(self, encoded: Tensor, context: Tensor, target: Tensor, number: int) -> Tensor:
        predictor = self.predictor
        x, places = predictor.embeddings(encoded, [context], [target], mask_index=number)
        order = torch.argsort(places, dim=1)
        x, places = predictor.sort_tokens(x, places, order)
        for layer in predictor.layer:
            x = layer(x, places)[0]
        x = predictor.unsort_tokens(predictor.layernorm(x), order)
        return predictor.proj(x[:, context.shape[1] :])
