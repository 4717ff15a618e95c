"""Signals that ask a training process to stop: noted when they come, acted on between steps."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

# SIGTERM: preemption, scancel. SIGUSR1 and SIGUSR2: what clusters send before a time limit.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

# Slurm and terminals send the same signal to a process more than once: that is one request.
SAME_REQUEST_SECONDS = 1.0

_NO_SIGNAL = b"\0"


class StopSignals:
    """Notes the first of `STOP_SIGNALS` that comes between `listen` and `restore`.

    The same signal again, or Ctrl-C after any, ends the process at once with its loader workers,
    unless it comes within a second of the first. It does so whatever the process is at, also where
    it waits in C for another process, a device or a disk. Another signal does not end it: a cluster
    that ends a job may send several. Signals that the process was started to ignore stay ignored.

    Attributes:
        received: Number of the signal; 0 while there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}
        self._writing: int | None = None  # an end of a pipe
        self._wakeup_before = -1

    def listen(self) -> None:
        """Takes the place of the handlers there are; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        # Handlers wait until Python gets its turn in the main thread, which may never be.
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        heard = {int(number) for number in self._before}
        threading.Thread(target=_watch, args=(reading, heard), daemon=True).start()

    def restore(self) -> None:
        """Puts back the handlers that there were."""
        for number, handler in self._before.items():
            # None: not set from Python, and so beyond its reach.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        if self._writing is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.write(self._writing, _NO_SIGNAL)
            os.close(self._writing)
            self._writing = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number


def _watch(reading: int, heard: set[int]) -> None:
    """Reads the numbers of signals from a pipe, and ends the process at a second request."""
    first, when = 0, 0.0
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while (read := pipe.read(1)) not in (_NO_SIGNAL, b""):
            number, now = read[0], time.monotonic()
            if number not in heard:
                continue
            if not first:
                first, when = number, now
            elif number in (first, signal.SIGINT) and now - when >= SAME_REQUEST_SECONDS:
                _end(number)


def _end(number: int) -> None:
    # A worker that hangs would live on: none of them heeds anything but the end of its work.
    for child in multiprocessing.active_children():
        child.kill()
    # Python sets handlers in the main thread alone, which may not get its turn.
    ctypes.CDLL(None).signal(number, None)
    os.kill(os.getpid(), number)
