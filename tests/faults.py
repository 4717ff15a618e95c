"""Faults that come into a training from outside.

This is the one place that knows how a step is entered (a method's `forward`) and where its loss is
made (the loss modules): tests know neither a loop nor a trainer.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from torch import Tensor

from salt_plugin.losses import LatentLoss, PixelLoss
from salt_plugin.methods import SALT, VJEPA, FineTune, LeVJEPA, PixelTeacher
from salt_plugin.training import world

STAGES = {
    PixelTeacher: "teacher",
    **dict.fromkeys((SALT, VJEPA, LeVJEPA, FineTune), "student"),
}


class Step(NamedTuple):
    """A step that is being made.

    Attributes:
        stage: `teacher` for pixels, `student` for latents.
        number: Counted from 1.
        batch: What it is made of.
    """

    stage: str
    number: int
    batch: Any

    def is_at(self, number: int, stage: str | None) -> bool:
        return self.number == number and stage in (None, self.stage)


def _nothing(*_: Any) -> None:
    pass


@contextmanager
def each_step(
    before: Callable[[Step], object] = _nothing,
    after: Callable[[Step, Tensor], object] = _nothing,
) -> Iterator[None]:
    """Calls `before` ahead of the forward pass of each step, and `after` with its loss."""

    def entered(original: Any, stage: str) -> Any:
        def forward(self: Any, batch: Any) -> Tensor:
            step = Step(stage, batch.step + 1, batch)
            before(step)
            loss: Tensor = original(self, batch)
            after(step, loss)
            return loss

        return forward

    with pytest.MonkeyPatch.context() as patch:
        for cls, stage in STAGES.items():
            patch.setattr(cls, "forward", entered(cls.forward, stage))
        yield


@contextmanager
def power_failure(step: int, stage: str | None = None) -> Iterator[None]:
    """Has training end at once in a step, and expects it to."""

    def fail(now: Step) -> None:
        if now.is_at(step, stage):
            raise MemoryError("as if the machine had gone")

    with each_step(fail), pytest.raises(MemoryError):
        yield


@contextmanager
def asked_to_stop(step: int, number: signal.Signals, stage: str | None = None) -> Iterator[None]:
    """Sends this process a signal in a step."""

    def ask(now: Step) -> None:
        if now.is_at(step, stage):
            signal.raise_signal(number)

    with each_step(ask):
        yield


@contextmanager
def spoilt(steps: Collection[int], how: str = "loss", stage: str | None = None) -> Iterator[None]:
    """Makes steps not finite.

    Args:
        steps: Which.
        how: `loss` adds infinity, which leaves gradients finite; `gradients` leaves the loss.
        stage: Of which stage; None for all.
    """
    current = [False]

    def note(now: Step) -> None:
        current[0] = now.number in steps and stage in (None, now.stage)

    def spoiling(original: Any) -> Any:
        def forward(self: Any, *given: Any, **named: Any) -> Tensor:
            loss: Tensor = original(self, *given, **named)
            if current[0] and how == "loss":
                return loss + float("inf")
            if current[0]:
                loss.register_hook(lambda gradient: gradient * float("nan"))
            return loss

        return forward

    with each_step(note), pytest.MonkeyPatch.context() as patch:
        for cls in (PixelLoss, LatentLoss):
            patch.setattr(cls, "forward", spoiling(cls.forward))
        yield


@contextmanager
def steps_that_take(seconds: float) -> Iterator[None]:
    """Has each step take so long by the clock that tells when to save."""
    now = [time.monotonic()]

    def pass_by(_: Step) -> None:
        now[0] += seconds

    with each_step(pass_by), pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        yield


def shorten_patience(seconds: float, quiet: float = 30) -> None:
    """Has this process wait no longer for others that it trains with."""
    world.PATIENCE, world.QUIET = timedelta(seconds=seconds), timedelta(seconds=quiet)
