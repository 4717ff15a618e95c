"""SALT's training step assembled from the modules of V-JEPA 2's repository, for `step.py`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salt_plugin.batch import Batch
from salt_plugin.shapes import EncoderShape, PredictorShape


class VJEPA2Step(nn.Module):
    """Its encoders, predictor and wrappers of several mask sets, around a frozen teacher.

    Args:
        repository: A checkout of facebookresearch/vjepa2.
        shape: Of student and teacher.
        predictor: Of the predictor.
        frames: Frames of a clip.
        size: Height and width of a clip.
    """

    def __init__(
        self,
        repository: Path,
        shape: EncoderShape,
        predictor: PredictorShape,
        frames: int,
        size: int,
    ) -> None:
        super().__init__()
        sys.path.insert(0, str(repository))
        from src.masks.utils import apply_masks
        from src.models.predictor import VisionTransformerPredictor
        from src.models.vision_transformer import VisionTransformer
        from src.utils.wrappers import MultiSeqWrapper, PredictorMultiSeqWrapper

        self._pick = partial(apply_masks, concat=False)
        both = {
            "img_size": (size, size),
            "patch_size": shape.patch_size,
            "num_frames": frames,
            "tubelet_size": shape.tubelet_size,
            "embed_dim": shape.embed_dim,
            "uniform_power": True,
            "use_sdpa": True,
            "use_rope": True,
            "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        }
        own = {"depth": shape.depth, "num_heads": shape.num_heads, "mlp_ratio": shape.mlp_ratio}
        self.encoder = MultiSeqWrapper(VisionTransformer(**both, **own))
        self.teacher = MultiSeqWrapper(VisionTransformer(**both, **own)).requires_grad_(False)
        self.predictor = PredictorMultiSeqWrapper(
            VisionTransformerPredictor(
                **both,
                predictor_embed_dim=predictor.dim,
                depth=predictor.depth,
                num_heads=predictor.num_heads,
                use_mask_tokens=True,
                num_mask_tokens=predictor.num_mask_tokens,
                zero_init_mask_tokens=True,
            )
        )

    def loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        contexts = [[mask.context for mask in batch.masks]]
        targets = [[mask.target for mask in batch.masks]]
        with torch.no_grad():
            latents = [F.layer_norm(h, h.shape[-1:]) for h in self.teacher([batch.clips])]
        predicted = self.predictor(self.encoder([batch.clips], contexts), contexts, targets)
        wanted = [self._pick(h, own) for h, own in zip(latents, targets, strict=True)]
        losses = [
            (z - h).abs().mean()
            for zs, hs in zip(predicted, wanted, strict=True)
            for z, h in zip(zs, hs, strict=True)
        ]
        return torch.stack(losses).mean()

    def trained(self) -> list[nn.Parameter]:
        """Returns what the optimiser sees."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
