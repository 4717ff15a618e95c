"""How long a file may be read without a sign of life."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from salt_plugin.video.reader import OutOfReachError

Result = TypeVar("Result")

# Seconds. A process that is suspended, however long, loses at most one of these.
_SLICE = 1.0

_thread = threading.local()


class ReadTimeoutError(OutOfReachError):
    """A file that was not read in time."""


def beat() -> None:
    """Tells the listener of this thread that a packet was read or a frame was decoded."""
    listener = getattr(_thread, "listener", None)
    if listener is not None:
        listener()


@contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Calls a function at every beat of this thread."""
    _thread.listener = listener
    try:
        yield
    finally:
        _thread.listener = None


def within(seconds: float | None, path: str, read: Callable[[], Result]) -> Result:
    """Calls a function that reads a file, and gives it up after a time without a sign of life.

    Neither FFmpeg nor decord can be interrupted: a read that hangs goes on in a thread of its own,
    which ends with the process at the latest.

    Args:
        seconds: Time since the last packet or frame, without most of the time in which the process
            was suspended. None waits for ever.
        path: The file, for the message.
        read: Reads it.

    Raises:
        ReadTimeoutError: It takes longer.
    """
    if seconds is None:
        return read()
    outcome: list[tuple[Any, BaseException | None]] = []
    alive = threading.Event()

    def run() -> None:
        try:
            with heard_by(alive.set):
                outcome.append((read(), None))
        except BaseException as error:  # raised again in the thread that waits
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True, name="salt-read")
    thread.start()
    left = seconds
    while left > 0 and not outcome:
        thread.join(min(left, _SLICE))
        left = seconds if alive.is_set() else left - _SLICE
        alive.clear()
    if not outcome:
        raise ReadTimeoutError(path, f"not read within {seconds:g} s")
    result, error = outcome.pop()
    try:
        if error is not None:
            raise error
        return result
    finally:
        del error  # it refers to this frame: together they would keep the open file in memory
