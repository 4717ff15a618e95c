"""Randomness of training itself, such as stochastic depth."""

from __future__ import annotations

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from salt_plugin.masks import Batch


class StepRandomness(Callback):
    """Seeds torch for every step by (seed, rank, step), so that a resume has nothing to restore.

    Args:
        seed: Seed of the stage.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Seeds the step."""
        entropy = np.random.SeedSequence((self.seed, trainer.global_rank, batch.step))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))
