"""Signals that ask a training process to stop: noted when they come, acted on between steps."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

# SIGTERM: preemption, scancel. SIGUSR1 and SIGUSR2: what clusters send before a time limit.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

# Slurm and terminals send the same signal to a process more than once: that is one request.
SAME_REQUEST_SECONDS = 1.0


class StopSignals:
    """Notes the first of `STOP_SIGNALS` that comes between `listen` and `restore`.

    The same signal again, or Ctrl-C after any, ends the process at once, unless it comes within a
    second of the first. Another signal does not: a cluster that ends a job may send several.
    Signals that the process was started to ignore stay ignored.

    Attributes:
        received: Number of the signal; 0 while there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._time = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Takes the place of the handlers there are; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Puts back the handlers that there were."""
        for number, handler in self._before.items():
            # None: not set from Python, and so beyond its reach.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._time = number, now
        elif number in (self.received, signal.SIGINT) and now - self._time >= SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
