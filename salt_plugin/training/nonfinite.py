"""Steps whose loss or gradients are not finite."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_plugin.errors import SaltError
from salt_plugin.files import write_json
from salt_plugin.training.world import Ranks

_SHOWN = 5


class _Step(NamedTuple):
    number: int
    paths: Sequence[str]
    found_3: Tensor
    copied: torch.cuda.Event | None


@dataclass
class NonFinite:
    """Lists steps that are not finite in `nonfinite.json`, and ends training at too many in a row.

    The method leaves their updates out (`methods.VideoMethod`). Under float16 a gradient scaler
    overflows now and then by design, and skips these steps itself: such a step counts only if the
    loss is not finite, or if gradients overflow float16 at a scale of 1.

    A step is looked at when the next one is done, so that no step waits for the device.

    Attributes:
        ranks: The processes that train together; all of them end at the same step.
        path: The list.
        limit: Steps in a row that end training.
        seed: The stage's, for the list.
        start_step: Steps that were done before, when the stage resumes; what a killed run had met
            beyond them is cut from the list.
        scaler: Of gradients under float16, else None.
        in_a_row: Steps in a row up to now that were not finite.
    """

    ranks: Ranks
    path: Path
    limit: int
    seed: int
    start_step: int
    scaler: torch.amp.GradScaler | None = None
    in_a_row: int = field(default=0, init=False)
    _listed: list[dict[str, Any]] = field(default_factory=list, init=False)
    _last: _Step | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Cuts the list back."""
        if self.ranks.is_first and self.path.is_file():
            listed = json.loads(self.path.read_text())["steps"]
            self._listed = [entry for entry in listed if entry["step"] <= self.start_step]
            write_json(self.path, {"steps": self._listed})

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
        on_host_3 = found_3.to("cpu", non_blocking=True)
        copied = torch.cuda.current_stream().record_event() if found_3.is_cuda else None
        self._last = _Step(step, paths, on_host_3, copied)

    def settle(self) -> int:
        """Looks at what was taken down, waiting for the device; every process has to call it.

        Returns:
            `in_a_row`.

        Raises:
            SaltError: They are too many.
        """
        if self._last is None:
            return self.in_a_row
        step, self._last = self._last, None
        if step.copied is not None:
            step.copied.synchronize()
        bad, loss, norm = step.found_3.tolist()
        self.in_a_row = self.in_a_row + 1 if self.ranks.any(bool(bad)) else 0
        if self.in_a_row:
            self._report(step.number, loss, norm, step.paths)
        return self.in_a_row

    def _report(self, step: int, loss: float, norm: float, own_paths: Sequence[str]) -> None:
        """Lists a step, and warns of it or ends training."""
        losses, all_paths = zip(*self.ranks.gather((loss, list(own_paths))), strict=True)
        paths = [path for of_rank in all_paths for path in of_rank]
        self._listed.append(
            {
                "step": step,
                "seed": self.seed,
                "loss": [str(loss) for loss in losses],
                "grad_norm": str(norm),
                "paths": paths,
            }
        )
        if self.ranks.is_first:
            write_json(self.path, {"steps": self._listed})
        shown = next((one for one in losses if not math.isfinite(one)), losses[0])
        message = (
            f"the loss is {shown} and the gradient norm {norm} at step {step}, "
            f"{self.in_a_row} such in a row"
        )
        if self.in_a_row >= self.limit:
            first = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
            raise SaltError(
                f"{message}: training has diverged, or the data is to blame. Its clips are of "
                f"{first}; {self.path} lists all, with step and seed. The weights are unharmed and "
                "what was saved is kept: train anew with a lower optimizer.lr or "
                "method.optim.clip_grad, or raise method.max_nonfinite_steps "
                f"({self.limit}) to go on past these steps"
            )
        if self.ranks.is_first:
            warnings.warn(
                f"{message}; its update is left out. {self.path} lists its files", stacklevel=2
            )
