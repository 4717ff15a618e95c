"""Stage 2: a student predicts the latents of a frozen teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from salt_plugin.errors import CheckpointError
from salt_plugin.losses import LatentLoss
from salt_plugin.methods.latent import LatentPrediction
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.block import BlockStack
from salt_plugin.models.encoder import VideoEncoder
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher
from salt_plugin.shapes import Grid


class SALT(LatentPrediction):
    """Predicts at the masked places what a frozen teacher makes of the whole clip.

    The loss is `LatentPrediction`'s. The teacher is never updated: no EMA.

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
        super().__init__(encoder, predictor, loss, recipe)
        self.teacher = teacher
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

    def latents(self, patches_bnp: Tensor, grid: Grid) -> Tensor:
        """Returns the teacher's latents [B, N, D] of whole clips."""
        latents_bnd: Tensor = self.teacher(patches_bnp, grid)
        return latents_bnd
