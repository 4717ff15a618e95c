"""V-JEPA: an encoder predicts the latents of its own moving average."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from salt_plugin.batch import Batch
from salt_plugin.losses import LatentLoss
from salt_plugin.methods.average import follow
from salt_plugin.methods.base import Pieces, VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder, gather_tokens
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher
from salt_plugin.stage_directory import ONLINE

# Tokens of the targets that are looked at for collapse.
WATCHED_TOKENS = 1024


class VJEPA(VideoMethod):
    """Predicts at the masked places what an EMA of the student makes of the whole clip.

    The loss is SALT's: for every mask set, with context x and target y of a clip,
    loss = |predictor(student(x), y) - LayerNorm(teacher(clip)[y])|_1; sets are averaged. The
    teacher starts as a copy of the student, and after optimiser step k of K, counted from 0,
    teacher = m_k teacher + (1 - m_k) student, where m_k goes linearly from `momentum[0]` at 0 to
    `momentum[1]` at K. V-JEPA 1 has 0.998 and 1.0 (arXiv 2404.08471), V-JEPA 2 0.99925 throughout
    (arXiv 2506.09985).

    Args:
        student: The encoder that is trained.
        predictor: Projects to the student's own width.
        loss: Distance to the latents.
        recipe: Optimiser and schedules.
        momentum: Of the moving average, first and last.

    Attributes:
        teacher: The moving average, V-JEPA's target encoder: no gradient, evaluation mode, in the
            checkpoint. It is the result, since it is what V-JEPA evaluates.
    """

    def __init__(
        self,
        student: VideoEncoder,
        predictor: Predictor,
        loss: LatentLoss,
        recipe: Recipe,
        momentum: tuple[float, float],
    ) -> None:
        super().__init__(recipe)
        self.student = student
        self.predictor = predictor
        self.teacher = copy.deepcopy(student).eval().requires_grad_(False)
        self.loss = loss
        self.momentum = momentum

    @classmethod
    def configured(
        cls,
        node: Any,
        pieces: Pieces,
        encoder: VideoEncoder,
        recipe: Recipe,
        teacher: FrozenTeacher | None,
    ) -> VJEPA:
        """Builds what a configuration describes; see `VideoMethod.configured`."""
        assert pieces.latent_loss is not None
        predictor = pieces.new_predictor(encoder, encoder.embed_dim)
        momentum = node.momentum.start, node.momentum.end
        return cls(encoder, predictor, pieces.latent_loss, recipe, momentum)

    @property
    def result(self) -> VideoEncoder:
        """The teacher."""
        return self.teacher

    @property
    def others(self) -> dict[str, VideoEncoder]:
        """The student, which is what was trained."""
        return {ONLINE: self.student}

    def targets(self, clips: Tensor) -> Tensor:
        """Returns the teacher's latents; see `VideoMethod.targets`."""
        patches_bnp, grid = self.teacher.patchify(clips), self.teacher.grid(clips)
        return self.teacher.forward_patches(patches_bnp, grid)

    def trained(self) -> list[nn.Module]:
        """Returns student and predictor."""
        return [self.student, self.predictor]

    def train(self, mode: bool = True) -> VJEPA:
        """Leaves the teacher in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch, and keeps some of the teacher's latents to be watched."""
        clips = batch.normalized()
        patches_bnp, grid = self.student.patchify(clips), self.student.grid(clips)
        with torch.no_grad():
            latents_bnd = self.teacher.forward_patches(patches_bnp, grid)
            latents_td = latents_bnd.flatten(0, 1)
            self.watched_kd = latents_td[:: -(-len(latents_td) // WATCHED_TOKENS)].clone()
        encoded = self.student.forward_sets(patches_bnp, grid, batch.masks)
        predicted = self.predictor.forward_sets(encoded, batch.masks, grid)
        losses = [
            self.loss(predicted_bmd, gather_tokens(latents_bnd[mask.clips], mask.target))
            for predicted_bmd, mask in zip(predicted, batch.masks, strict=True)
        ]
        return batch.mean(losses)

    def momentum_at(self, position: float) -> float:
        """Returns the momentum after `position` of the recipe's steps, counted from 0."""
        start, end = self.momentum
        return start + (end - start) * position / (self.recipe.total_steps * self.recipe.stretch)

    def update_ema(self, position: float) -> None:
        """Moves the teacher towards the student, after the optimiser's step at `position`."""
        follow(self.teacher, self.student, self.momentum_at(position))
