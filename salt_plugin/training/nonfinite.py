"""Steps whose loss or gradients are not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from salt_plugin.errors import SaltError
from salt_plugin.files import write_json
from salt_plugin.training.ranks import Ranks

_SHOWN = 5


class _Step(NamedTuple):
    number: int
    paths: Sequence[str]
    found_3: Tensor
    copied: torch.cuda.Event | None


class NonFinite:
    """Lists steps that are not finite in `nonfinite.json`, and ends training at too many in a row.

    The method leaves their updates out (`methods.VideoMethod`). Under float16 a gradient scaler
    overflows now and then by design, and leaves out these steps itself: there they count where the
    loss is not finite either, or gradients are too large for float16 without any scale.

    A step is looked at when the next one is done, so that no step waits for the device.

    Args:
        ranks: The processes that train together; all of them end at the same step.
        path: The list.
        limit: Steps in a row that end training.
        seed: The stage's, for the list.
        start_step: Steps that were done before, when the stage resumes; what a killed run had met
            beyond them is cut from the list.
        scaler: Of gradients under float16, else None.
    """

    def __init__(
        self,
        ranks: Ranks,
        path: Path,
        limit: int,
        seed: int,
        start_step: int,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.ranks = ranks
        self.path = path
        self.limit = limit
        self.seed = seed
        self.scaler = scaler
        self._in_a_row = 0
        self._listed: list[dict[str, Any]] = []
        self._last: _Step | None = None
        if ranks.is_first and path.is_file():
            listed = json.loads(path.read_text())["steps"]
            self._listed = [entry for entry in listed if entry["step"] <= start_step]
            self._write()

    def take(self, step: int, loss: Tensor, norm: Tensor, paths: Sequence[str]) -> None:
        """Takes a step down, and looks at the one before.

        Args:
            step: Steps done.
            loss: Of this process.
            norm: Of the gradients, before clipping.
            paths: The files of its clips.

        Raises:
            SaltError: Too many in a row were not finite.
        """
        self.settle()
        bad = ~norm.isfinite()
        if self.scaler is not None:
            bad &= self.scaler.scale(torch.ones_like(norm)) < 1
        bad |= ~loss.isfinite()
        found_3 = torch.stack([bad.float(), loss.float(), norm.float()])
        copied = torch.cuda.Event() if found_3.is_cuda else None
        found_3 = found_3.to("cpu", non_blocking=True)
        if copied is not None:
            copied.record()
        self._last = _Step(step, paths, found_3, copied)

    def settle(self) -> int:
        """Looks at what was taken down, waiting for the device; every process has to call it.

        Returns:
            Steps in a row up to now that were not finite.

        Raises:
            SaltError: They are too many.
        """
        if self._last is None:
            return self._in_a_row
        step, self._last = self._last, None
        if step.copied is not None:
            step.copied.synchronize()
        (bad,) = self.ranks.largest([int(step.found_3[0])])
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if bad:
            self._tell(step)
        return self._in_a_row

    def state_dict(self) -> dict[str, Any]:
        """Returns how many in a row were not finite."""
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues to count."""
        self._in_a_row = state_dict["in_a_row"]

    def _tell(self, step: _Step) -> None:
        gathered = self.ranks.gather((step.found_3[1:].tolist(), list(step.paths)))
        losses, norms = zip(*(found for found, _ in gathered), strict=True)
        paths = [path for _, of_rank in gathered for path in of_rank]
        entry = {
            "step": step.number,
            "seed": self.seed,
            "loss": [str(loss) for loss in losses],
            "grad_norm": str(norms[0]),
            "paths": paths,
        }
        self._listed.append(entry)
        self._write()
        loss = next((one for one in losses if not math.isfinite(one)), losses[0])
        message = (
            f"the loss is {loss} and the gradient norm {norms[0]} at step {step.number}, "
            f"{self._in_a_row} such in a row"
        )
        if self._in_a_row < self.limit:
            rank_zero_warn(f"{message}; its update is left out. {self.path} lists its files")
            return
        shown = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
        raise SaltError(
            f"{message}: training has diverged, or the data is to blame. Its clips are of {shown}; "
            f"{self.path} lists all, with step and seed. The weights are unharmed and what was "
            "saved is kept: train anew with a lower optimizer.lr or method.optim.clip_grad, or "
            f"raise method.max_nonfinite_steps ({self.limit}) to go on past these steps"
        )

    def _write(self) -> None:
        if self.ranks.is_first:
            write_json(self.path, {"steps": self._listed})
