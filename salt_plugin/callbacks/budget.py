"""Training under a budget of FLOPs instead of a number of steps."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer

from salt_plugin.callbacks.accounts import Accounts
from salt_plugin.masks import Batch


class Budget(Callback):
    """Ends a stage before the first step that its budget does not cover, and tells how far it is.

    Schedules follow what is spent of the budget, not the steps, whose cost varies with the masks:
    so they end where the stage does. It has to stand after `Accounts`.

    Args:
        accounts: Tells what is spent, and what the next step costs.
        flops: The budget of the stage, in the `exact` convention.
        planned_steps: Steps that it is expected to pay for.

    Attributes:
        exhausted: Whether the stage has ended.
    """

    def __init__(self, accounts: Accounts, flops: int, planned_steps: int) -> None:
        self.accounts = accounts
        self.flops = flops
        self.planned_steps = planned_steps
        self.exhausted = False

    def position(self) -> float:
        """Returns how many of the planned steps are done: their share is that of the FLOPs."""
        return self.planned_steps * self.accounts.ledger.total_flops / self.flops

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stops where the step does not fit any more."""
        if self.accounts.ledger.total_flops + self.accounts.next_flops > self.flops:
            self.exhausted = trainer.should_stop = True
