"""When a stage saves the checkpoint that it resumes from, and when it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from salt_plugin.errors import SaltError
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.ranks import Ranks
from salt_plugin.training.resume import ResumePoint
from salt_plugin.training.writer import BackgroundWriter, Failure


class Saving:
    """Has `last.ckpt` written now and then, by a thread, while training goes on.

    The one before it is kept as well, in case a disk damages it. Where it cannot be written,
    training goes on to the next time, and ends with an error if there is none. While steps are not
    finite, none is written until one is again.

    Args:
        path: The file.
        resumed: What the stage has resumed from.
        every_n_steps: How often, in steps.
        every_minutes: How often, in minutes, if that comes first; 0 or None leaves it at steps.
        writer: Writes the file in the first process.
        ranks: The processes that train together: they save at the same step, when the first one's
            clock says so.
        nonfinite: Tells whether steps are finite.
        before: What to write first, given the step; every process calls it.
        state: Returns what a checkpoint holds after a step.
    """

    def __init__(
        self,
        path: Path,
        resumed: ResumePoint,
        every_n_steps: int,
        every_minutes: float | None,
        writer: BackgroundWriter,
        ranks: Ranks,
        nonfinite: NonFinite,
        before: Callable[[int], None],
        state: Callable[[int], dict[str, Any]],
    ) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.writer = writer
        self.ranks = ranks
        self.nonfinite = nonfinite
        self.before = before
        self.state = state
        self._put_off = False
        self._step = resumed.step
        self._time = time.monotonic()
        if ranks.is_first and resumed.path not in (None, path):
            os.replace(resumed.path, path)  # over a damaged one

    def is_late(self) -> bool:
        """Tells, in the first process, whether the last checkpoint is too long ago."""
        if not self.every_minutes or not self.ranks.is_first:
            return False
        return time.monotonic() - self._time >= 60 * self.every_minutes

    def save_if_due(self, step: int, now: bool, last_chance: bool = False) -> None:
        """Saves after every so many steps, or `now`; every process has to call it alike.

        Raises:
            SaltError: The file could not be written, and there is no other chance.
        """
        if step % self.every_n_steps == 0 or now or last_chance or self._put_off:
            self._save(step, last_chance)
        elif not self.writer.busy:
            self._warn(self.writer.failure())

    def save_last(self, step: int) -> None:
        """Saves the last step, unless it is saved.

        Raises:
            SaltError: The file could not be written.
        """
        failure = self.writer.failure()
        self._warn(failure)
        (failed,) = self.ranks.largest([int(failure is not None)])
        if failed or step != self._step:
            self._save(step, last_chance=True)

    def close(self) -> None:
        """Waits for what is being written."""
        failure = self.writer.failure()
        if failure is not None:
            rank_zero_warn(self._told(failure))
        self.writer.close()

    def _save(self, step: int, last_chance: bool) -> None:
        self._put_off = self.nonfinite.settle() > 0 and not last_chance
        if self._put_off:
            return
        self._step, self._time = step, time.monotonic()
        self._warn(self.writer.failure())
        self.before(step)
        if self.ranks.is_first:
            self.writer.save(self.state(step), self.path)
        if last_chance:
            failure = self.writer.failure()
            (failed,) = self.ranks.largest([int(failure is not None)])
            if failed:
                raise SaltError(self._told(failure))

    def _warn(self, failure: Failure | None) -> None:
        if failure is not None:
            rank_zero_warn(f"{self._told(failure)}, and training goes on")

    def _told(self, failure: Failure | None) -> str:
        step, reason = failure or (self._step, "by the first process")
        return (
            f"the checkpoint of step {step} could not be written ({reason}); make room for it, or "
            f"mend {self.path.parent}: what was saved up to step {self.writer.saved_step} is kept"
        )
