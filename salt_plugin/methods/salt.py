"""Stage 2: a student predicts the latents of a frozen teacher."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from salt_plugin.batch import Batch
from salt_plugin.compute.cost import FLOPS_PER_EMA_PARAMETER, encoder_parameters
from salt_plugin.errors import CheckpointError, SaltError
from salt_plugin.losses import LatentLoss
from salt_plugin.methods.average import follow, rising
from salt_plugin.methods.base import Pieces, VideoMethod
from salt_plugin.methods.recipe import Recipe
from salt_plugin.models.encoder import VideoEncoder, gather_tokens
from salt_plugin.models.predictor import Predictor
from salt_plugin.models.teacher import FrozenTeacher
from salt_plugin.stage_directory import EMA


class SALT(VideoMethod):
    """Predicts at the masked places what a frozen teacher makes of the whole clip.

    For every mask set, with context x and target y of a clip,
    loss = |predictor(student(x), y) - LayerNorm(teacher(clip)[y])|_1; sets are averaged. The
    teacher sees the whole clip once, without a gradient, and is never updated: no EMA.

    Args:
        student: What is trained, and kept.
        predictor: Projects to the teacher's width.
        teacher: Any encoder on the same tubelets; sizes may differ.
        loss: Distance to the latents.
        recipe: Optimiser and schedules.
        momentum: Largest of a moving average of the student, which is kept beside it for
            evaluations and plays no part in training; 0: there is none. It rises as
            `average.rising` says.

    Attributes:
        ema: The moving average; None where there is none.
    """

    def __init__(
        self,
        student: VideoEncoder,
        predictor: Predictor,
        teacher: FrozenTeacher,
        loss: LatentLoss,
        recipe: Recipe,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(recipe)
        self.student = student
        self.predictor = predictor
        self.teacher = teacher
        self.loss = loss
        self.teacher_fingerprint = teacher.fingerprint()
        self.momentum = momentum
        self.ema = copy.deepcopy(student).eval().requires_grad_(False) if momentum else None

    @classmethod
    def configured(
        cls,
        node: Any,
        pieces: Pieces,
        encoder: VideoEncoder,
        recipe: Recipe,
        teacher: FrozenTeacher | None,
    ) -> SALT:
        """Builds what a configuration describes; see `VideoMethod.configured`."""
        assert pieces.latent_loss is not None
        assert teacher is not None
        predictor = pieces.new_predictor(encoder, teacher.embed_dim)
        return cls(encoder, predictor, teacher, pieces.latent_loss, recipe, node.ema)

    @property
    def result(self) -> VideoEncoder:
        """The student."""
        return self.student

    @property
    def others(self) -> dict[str, VideoEncoder]:
        """The moving average, where there is one."""
        return {} if self.ema is None else {EMA: self.ema}

    @property
    def evaluation_flops(self) -> int:
        """Those of the moving average."""
        if self.ema is None:
            return 0
        return FLOPS_PER_EMA_PARAMETER * encoder_parameters(self.ema.shape)

    def targets(self, clips: Tensor) -> Tensor:
        """Returns the teacher's latents; see `VideoMethod.targets`."""
        return self.teacher(self.student.patchify(clips), self.student.grid(clips))

    def trained(self) -> list[nn.Module]:
        """Returns student and predictor."""
        return [self.student, self.predictor]

    def train(self, mode: bool = True) -> SALT:
        """Leaves the moving average in evaluation mode."""
        super().train(mode)
        if self.ema is not None:
            self.ema.eval()
        return self

    def update_ema(self, position: float) -> None:
        """Moves the moving average towards the student, after the step at `position`."""
        if self.ema is not None:
            done = self.recipe.steps_before + position
            follow(self.ema, self.student, rising(self.momentum, done))

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch."""
        clips = batch.normalized()
        patches_bnp, grid = self.student.patchify(clips), self.student.grid(clips)
        latents_bnd = self.teacher(patches_bnp, grid)
        encoded = self.student.forward_sets(patches_bnp, grid, batch.masks)
        predicted = self.predictor.forward_sets(encoded, batch.masks, grid)
        losses = [
            self.loss(predicted_bmd, gather_tokens(latents_bnd[mask.clips], mask.target))
            for predicted_bmd, mask in zip(predicted, batch.masks, strict=True)
        ]
        return batch.mean(losses)

    def check_frozen(self) -> None:
        """Checks the teacher.

        Raises:
            SaltError: Its weights have changed.
        """
        if not self.teacher.is_intact():
            raise SaltError(
                "the frozen teacher's weights have changed during training; please report"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes which teacher the student has learnt from."""
        checkpoint["teacher_fingerprint"] = self.teacher_fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on against another teacher.

        Raises:
            CheckpointError: The teacher is not the one that the student began with.
        """
        expected, found = checkpoint["teacher_fingerprint"], self.teacher.fingerprint()
        if expected != found:
            raise CheckpointError(
                "the teacher has changed since this student began: expected the fingerprint "
                f"{expected[:12]}, found {found[:12]}; bring the old teacher back, or choose "
                "another hydra.run.dir"
            )
