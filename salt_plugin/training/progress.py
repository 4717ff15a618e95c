"""Progress that a person can read."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from torch import Tensor

from salt_plugin.compute import Ledger
from salt_plugin.report.console import console
from salt_plugin.report.units import duration, flops

REFRESH_SECONDS = 0.5
LINE_SECONDS = 30.0


class Progress:
    """One bar a stage, with loss, clips/s and time left; plain lines where there is no terminal.

    Args:
        title: Name of the stage.
        total_steps: Its steps; under a budget, those that it is expected to pay for.
        ledger: Tells what is spent.
        position: How many of the steps were done before.
        shown: Whether to show anything: the first process does.
    """

    def __init__(
        self, title: str, total_steps: int, ledger: Ledger, position: float, shown: bool
    ) -> None:
        self.title = title
        self.total_steps = total_steps
        self.ledger = ledger
        self.shown = shown
        self.console = console()
        self._clips = ledger.clips
        self._start = position
        self._began = self._last = time.perf_counter()
        self._bar: Bar | None = None
        if shown and self.console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                console=self.console,
            )
            self._bar.start()
            self._bar.add_task(
                self.title, total=self.total_steps, completed=round(self._start), state=""
            )

    def show(self, position: float, loss: Tensor) -> None:
        """Moves the bar now and then: reading the loss waits for the device."""
        now = time.perf_counter()
        wait = REFRESH_SECONDS if self._bar is not None else LINE_SECONDS
        if not self.shown or (now - self._last < wait and position < self.total_steps):
            return
        self._last = now
        rate = (now - self._began) / max(1e-9, position - self._start)
        left = duration(rate * max(0.0, self.total_steps - position))
        clips = (self.ledger.clips - self._clips) / (now - self._began)
        spent = flops(self.ledger.total_flops)
        state = f"loss {float(loss):.4f}  {clips:.1f} clips/s  {spent}  {left} left"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=round(position), state=state)
        else:
            line = f"{self.title}  {round(position)}/{self.total_steps}  {state}"
            self.console.print(line)

    def stop(self) -> None:
        """Leaves the bar where it is."""
        if self._bar is not None:
            self._bar.stop()
