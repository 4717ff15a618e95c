"""Stage 2: a student predicts the latents of a frozen teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salt_plugin.errors import CheckpointError
from salt_plugin.losses import LatentLoss
from salt_plugin.masks import Batch
from salt_plugin.methods.base import VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.block import BlockStack
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.patches import gather_tokens
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher


class SALT(VideoMethod):
    """Encodes the visible tubelets and predicts what the teacher makes of the masked ones.

    For every mask set, with context x and target y of a clip,
    loss = |predictor(student(x), y) - LayerNorm(teacher(clip)[y])|_1; sets are averaged. The
    teacher sees the whole clip once, has no gradient and is never updated: no EMA.

    Args:
        encoder: The student.
        predictor: Projects to the teacher's width.
        teacher: Any encoder on the same tubelets; sizes may differ.
        loss: Distance to the latents.
        recipe: Optimiser and schedules.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        predictor: Predictor,
        teacher: FrozenTeacher,
        loss: LatentLoss,
        recipe: Recipe,
    ) -> None:
        super().__init__(encoder, predictor, recipe)
        self.teacher = teacher
        self.loss = loss
        self.teacher_fingerprint = teacher.fingerprint()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes which teacher the student has learnt from."""
        checkpoint["teacher_fingerprint"] = self.teacher_fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on against another teacher.

        Raises:
            CheckpointError: The teacher is not the one that the student began with.
        """
        if checkpoint["teacher_fingerprint"] != self.teacher_fingerprint:
            raise CheckpointError(
                "the teacher has changed since this student began: expected the fingerprint "
                f"{checkpoint['teacher_fingerprint'][:12]}, found {self.teacher_fingerprint[:12]}; "
                "bring the old teacher back, or choose another hydra.run.dir"
            )

    def block_stacks(self) -> list[BlockStack]:
        """Returns the blocks of student, predictor and teacher."""
        return [*super().block_stacks(), self.teacher.encoder.blocks]

    def step_loss(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        patches_bnp = self.encoder.patchify(batch.clips)
        grid = self.encoder.grid(batch.clips)
        latents_bnd = self.teacher(patches_bnp, grid)
        context = [mask.context for mask in batch.masks]
        target = [mask.target for mask in batch.masks]
        encoded = self.encoder.forward_sets(patches_bnp, grid, context)
        predicted = self.head.forward_sets(encoded, context, target, grid)
        losses = [
            self.loss(predicted_bmd, gather_tokens(latents_bnd, places_bm))
            for predicted_bmd, places_bm in zip(predicted, target, strict=True)
        ]
        return torch.stack(losses).mean()
