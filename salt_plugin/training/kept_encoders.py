"""Encoders of a stage on its way, to follow what training does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from salt_plugin.checkpoints import save_encoder
from salt_plugin.methods import VideoMethod
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.training.metrics import Metrics
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.ranks import Ranks


class KeptEncoders:
    """Writes `encoders/step-N.safetensors` every so many steps, and of the last step.

    Encoders that a killed run had written beyond its last checkpoint are removed, and made again.

    Args:
        ranks: The processes that train together.
        files: The stage's.
        every_n_steps: How often; None keeps none.
        metrics: Tells the loss on the card.
        nonfinite: Ends training before an encoder of too many steps that were not finite is kept.
        card: What else to write on the card of a step.
        start_step: Steps that were done before, when the stage resumes.
    """

    def __init__(
        self,
        ranks: Ranks,
        files: StageDirectory,
        every_n_steps: int | None,
        metrics: Metrics,
        nonfinite: NonFinite,
        card: Callable[[int], dict[str, Any]],
        start_step: int,
    ) -> None:
        self.ranks = ranks
        self.files = files
        self.every_n_steps = every_n_steps
        self.metrics = metrics
        self.nonfinite = nonfinite
        self.card = card
        if ranks.is_first:
            for step, path in files.kept_encoders().items():
                if step > start_step:
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)

    def keep_if_due(self, step: int, method: VideoMethod, last: bool = False) -> None:
        """Keeps the encoder when it is time, or of the last step; every process has to call it."""
        if self.every_n_steps is None or (step % self.every_n_steps and not last):
            return
        self.nonfinite.settle()
        self.metrics.flush()
        if self.ranks.is_first and step not in self.files.kept_encoders():
            card = {**self.card(step), "step": step, "loss": self.metrics.recent_loss()}
            save_encoder(method.result, self.files.encoder_at(step), card)
