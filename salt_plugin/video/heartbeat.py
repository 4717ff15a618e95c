"""Signs of life from a long read, for those who limit its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners = threading.local()


def beat() -> None:
    """Tells the listener of this thread that a packet was read or a frame was decoded."""
    listener = getattr(_listeners, "listener", None)
    if listener is not None:
        listener()


@contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Calls a function at every beat of this thread."""
    _listeners.listener = listener
    try:
        yield
    finally:
        _listeners.listener = None
