"""What a checkpoint holds: all that a stage needs to go on as if it had not stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_fabric.plugins.precision import Precision
from torch.optim import Optimizer

from salt_plugin.checkpoints import read_torch_file
from salt_plugin.compute import Ledger
from salt_plugin.errors import CheckpointError
from salt_plugin.methods import VideoMethod
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.resume import ResumePoint


@dataclass(frozen=True)
class TrainingState:
    """The parts of a stage that change as it is trained.

    Order, masks and augmentation are no state: they are functions of the seed and the step.

    Attributes:
        method: Weights.
        optimizer: Its moments.
        precision: The gradient scaler under float16.
        ledger: What was spent.
        nonfinite: Steps in a row that were not finite.
    """

    method: VideoMethod
    optimizer: Optimizer
    precision: Precision
    ledger: Ledger
    nonfinite: NonFinite

    def as_dict(self, step: int) -> dict[str, Any]:
        """Returns what a checkpoint after a step holds."""
        state = {
            "global_step": step,
            "state_dict": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "ledger": self.ledger.as_dict(),
            "nonfinite": self.nonfinite.state_dict(),
        }
        self.method.on_save_checkpoint(state)
        return state

    def restore(self, resumed: ResumePoint) -> None:
        """Takes up a checkpoint, where there is one.

        Raises:
            CheckpointError: It is of another stage, or of an earlier version.
        """
        if resumed.path is None:
            return
        held = read_torch_file(resumed.path)
        try:
            self.method.on_load_checkpoint(dict(held))
            self.method.load_state_dict(held["state_dict"])
            self.optimizer.load_state_dict(held["optimizer"])
            self.precision.load_state_dict(held["precision"])
            self.ledger.load(held["ledger"])
            self.nonfinite.load_state_dict(held["nonfinite"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{resumed.path} does not fit this stage ({error}); delete it to start the stage "
                "again"
            ) from error
