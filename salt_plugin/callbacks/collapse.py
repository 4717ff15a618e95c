"""Whether the targets of a method that makes its own still tell clips apart."""

from __future__ import annotations

from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from salt_plugin.evaluation.spectrum import effective_rank, spread
from salt_plugin.masks import Batch

MEASURE_EVERY = 100


class Collapse(Callback):
    """Measures the targets of the first step and of every hundredth, before normalisation.

    LayerNorm would hide what it is about: a collapsed target has a spread of 0 and an effective
    rank of 1 at most. A method without such targets is left alone, and so are targets that are not
    finite.

    Attributes:
        measured: `target_spread` and `target_rank` of the last step; empty where it was not
            looked at.
    """

    def __init__(self) -> None:
        self.measured: dict[str, float] = {}

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Measures when it is time."""
        self.measured = {}
        watched_kd = cast(Tensor | None, pl_module.watched_kd)
        step = trainer.global_step
        if watched_kd is None or not trainer.is_global_zero or (step > 1 and step % MEASURE_EVERY):
            return
        if not watched_kd.isfinite().all():
            return
        self.measured = {
            "target_spread": spread(watched_kd),
            "target_rank": effective_rank(watched_kd),
        }
