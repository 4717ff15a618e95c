"""The checkpoint that a stage resumes from: when it is saved, how it is written, which is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from salt_plugin.checkpoints import read_torch_file
from salt_plugin.config.method_nodes import CheckpointConfig
from salt_plugin.errors import CheckpointError, SaltError
from salt_plugin.files import sync
from salt_plugin.models.divided import whole
from salt_plugin.training.nonfinite import NonFinite
from salt_plugin.training.world import Ranks


class ResumePoint(NamedTuple):
    """A checkpoint and the optimiser steps in it; None and 0 where there is none."""

    path: Path | None
    step: int


def previous_checkpoint(last: Path) -> Path:
    """Returns where the checkpoint before the last one is kept."""
    return last.with_name(f"previous{last.suffix}")


def resume_point(last: Path) -> ResumePoint:
    """Returns the last checkpoint that is whole; a damaged one gives a warning.

    Args:
        last: Where the last one is kept.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    reasons = []
    for path in (last, previous_checkpoint(last)):
        if not path.is_file():
            continue
        try:
            step = read_torch_file(path, checksums=True).get("global_step")
            if not isinstance(step, int) or step < 0:
                raise CheckpointError(
                    f"its global_step is {str(step)[:80]}: expected a number of steps"
                )
        except CheckpointError as error:
            reasons.append(f"{path} cannot be resumed from: {error}")
            continue
        for reason in reasons:
            warnings.warn(f"{reason}; {path.name}, step {step}, is used", stacklevel=2)
        return ResumePoint(path, step)
    if reasons:
        raise CheckpointError(
            f"{'; '.join(reasons)}; delete {last.parent} to start this stage again, or choose "
            "another hydra.run.dir"
        )
    return ResumePoint(None, 0)


@dataclass
class Saving:
    """Has `last.ckpt` written now and then, by a thread, while training goes on.

    The one before it is kept as well, in case a disk damages it, and every so many steps one for
    good, as a further name of the same file. Where it cannot be written,
    training goes on to the next time, and ends with an error if there is none. None is written
    while steps are not finite. One is written at a time: the next waits for it.

    Attributes:
        path: The file.
        resumed: What the stage has resumed from.
        often: When to save, in steps and in minutes, whichever comes first.
        ranks: The processes that train together: they save at the same step, when the first one's
            clock says so.
        nonfinite: Knows whether steps are finite.
        beside: Files that have to be on the disk before a checkpoint is: what a resume counts on.
        write_beside: Writes them; every process calls it.
        state: Returns what a checkpoint holds, its step as `global_step`.
    """

    path: Path
    resumed: ResumePoint
    often: CheckpointConfig
    ranks: Ranks
    nonfinite: NonFinite
    beside: Sequence[Path]
    write_beside: Callable[[], None]
    state: Callable[[], dict[str, Any]]

    def __post_init__(self) -> None:
        """Puts the checkpoint that the stage has resumed from over a damaged one."""
        self._put_off = False
        self._written = self._step = self.resumed.step
        self._time = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[str | None] | None = None
        if self.ranks.is_first and self.resumed.path not in (None, self.path):
            os.replace(self.resumed.path, self.path)

    def is_late(self) -> bool:
        """Returns, in the first process, whether the last checkpoint is too long ago."""
        minutes = self.often.every_minutes
        if not minutes or not self.ranks.is_first:
            return False
        return time.monotonic() - self._time >= 60 * minutes

    def save_if_due(self, step: int, now: bool, last_chance: bool = False) -> None:
        """Saves after every so many steps, or `now`; every process has to call it alike.

        Raises:
            SaltError: The file could not be written, and there is no other chance.
        """
        due = step % self.often.every_n_steps == 0 or self._is_kept(step)
        if due or now or last_chance or self._put_off:
            self._save(step, last_chance)
        elif self._writing is not None and self._writing.done():
            _warn(self._failure())

    def _is_kept(self, step: int) -> bool:
        every = self.often.keep_every
        return every is not None and step > 0 and step % every == 0

    def save_last(self, step: int) -> None:
        """Saves the last step, unless it is saved.

        Raises:
            SaltError: The file could not be written.
        """
        failure = self._failure()
        _warn(failure)
        if self.ranks.any(failure is not None) or step != self._step:
            self._save(step, last_chance=True)

    def close(self) -> None:
        """Waits for what is being written."""
        _warn(self._failure(), goes_on=False)
        self._thread.shutdown()

    def _save(self, step: int, last_chance: bool) -> None:
        self._put_off = self.nonfinite.settle() > 0 and not last_chance
        if self._put_off:
            return
        self._step, self._time = step, time.monotonic()
        _warn(self._failure())
        self.write_beside()
        state = self.state()
        copied = on_host(state, keep=self.ranks.is_first)
        if self.ranks.is_first:
            self._writing = self._thread.submit(self._write, copied)
        if last_chance:
            failure = self._failure()
            if self.ranks.any(failure is not None):
                raise SaltError(failure or f"the checkpoint of step {step} could not be written")

    def _failure(self) -> str | None:
        """Waits for what is being written, and returns why it could not be."""
        writing, self._writing = self._writing, None
        return None if writing is None else writing.result()

    def _write(self, state: dict[str, Any]) -> str | None:
        """Writes a checkpoint under another name, and renames it once it is on the disk."""
        unfinished, step = self.path.with_suffix(".tmp"), state["global_step"]
        try:
            unfinished.unlink(missing_ok=True)  # a kept checkpoint may be the same file
            torch.save(state, unfinished)
            for file in (unfinished, *self.beside):
                sync(file)
            if self._is_kept(step):
                self._keep(unfinished, step)
            if self.path.is_file():
                os.replace(self.path, previous_checkpoint(self.path))
            os.replace(unfinished, self.path)
            sync(self.path.parent)
        except (OSError, RuntimeError) as error:
            if not is_of_the_disk(error):
                raise
            with contextlib.suppress(OSError):
                unfinished.unlink()  # what fits of it only takes room
            return (
                f"the checkpoint of step {step} could not be written ({error}); make room for it, "
                f"or mend {self.path.parent}: what was saved up to step {self._written} is kept"
            )
        self._written = step
        return None

    def _keep(self, whole: Path, step: int) -> None:
        """Gives a checkpoint that is on the disk the name of its step as well; or warns."""
        kept = self.path.with_name(f"step-{step}.ckpt")
        unfinished = kept.with_suffix(".tmp")
        try:
            unfinished.unlink(missing_ok=True)
            try:
                os.link(whole, unfinished)  # takes no room
            except OSError:  # of a file system without links
                shutil.copyfile(whole, unfinished)
                sync(unfinished)
            os.replace(unfinished, kept)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            _warn(f"{kept.name} could not be kept ({error}); make room in {kept.parent}")


def is_of_the_disk(error: Exception) -> bool:
    """Tells whether a file could not be written, by an error of the system or of torch."""
    # torch's own error of a file that took a part only is a RuntimeError.
    return isinstance(error, OSError) or "inline_container" in str(error)


def on_host(state: dict[str, Any], keep: bool = True) -> dict[str, Any]:
    """Returns a copy of nested content in the host's memory, which training does not change.

    Args:
        state: Where it has divided tensors, every process has to call this.
        keep: Whether the copy is wanted; where not, it is empty of tensors.
    """

    def copied(tensor: Tensor) -> Tensor | None:
        in_one = whole(tensor.detach())
        return in_one.to("cpu", copy=True) if keep else None

    found: dict[str, Any] = apply_to_collection(state, Tensor, copied)
    return found


def _warn(failure: str | None, goes_on: bool = True) -> None:
    if failure is not None:
        warnings.warn(f"{failure}, and training goes on" if goes_on else failure, stacklevel=3)
