"""Which reader a file is opened with, and how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from salt_plugin.video.decord_danger import decord_danger
from salt_plugin.video.decord_reader import DecordReader
from salt_plugin.video.exact_reader import ExactReader
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.heartbeat import heard_by
from salt_plugin.video.reader import Reader, VideoReadError

READERS = ("pyav", "auto", "decord")
DEFAULT_READER = "pyav"

Result = TypeVar("Result")

_TIMEOUT = "not read within"
# Seconds. However long a process stands still, it takes it for one of these.
_SLICE = 1.0


class ReadTimeoutError(VideoReadError):
    """A file that was not read in time."""


def is_timeout(reason: str) -> bool:
    """Tells whether the reason of a `VideoReadError` is that of a `ReadTimeoutError`."""
    return reason.startswith(_TIMEOUT)


def open_video(path: str, reader: str = DEFAULT_READER) -> Reader:
    """Opens a video.

    Args:
        path: The file.
        reader: `pyav` reads exactly. `decord` refuses files of the kinds in which decord returns
            frames that were not asked for. `auto` leaves these to `pyav`, and others to decord.

    Raises:
        VideoReadError: It cannot be read, or not by this reader.
    """
    if reader == "pyav":
        return ExactReader(path)
    facts = facts_of(path)
    danger = decord_danger(facts)
    if path.encode(errors="replace").decode() != path:
        danger = "its name is not UTF-8, and decord opens no such file"
    if danger is None:
        return DecordReader(path, facts.times)
    if reader == "auto":
        return ExactReader(path)
    raise VideoReadError(path, f"{danger}; method.data.reader=pyav reads it")


def within(seconds: float | None, path: str, read: Callable[[], Result]) -> Result:
    """Calls a function that reads a file, and gives it up after a time without a sign of life.

    Neither FFmpeg nor decord can be interrupted: what hangs goes on in a thread of its own, which
    ends with the process at the latest.

    Args:
        seconds: The time since the last packet or frame, but for most of what the process stands
            still in (suspended by Slurm, or with the machine): it reads nothing then; None waits
            for ever.
        path: The file, for the message.
        read: Reads it.

    Raises:
        ReadTimeoutError: If it takes longer.
    """
    if seconds is None:
        return read()
    outcome: list[tuple[Any, BaseException | None]] = []
    alive = threading.Event()

    def run() -> None:
        try:
            with heard_by(alive.set):
                outcome.append((read(), None))
        except BaseException as error:  # raised again where it is waited for
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True, name="salt-read")
    thread.start()
    left = seconds
    while left > 0 and not outcome:
        thread.join(min(left, _SLICE))
        left = seconds if alive.is_set() else left - _SLICE
        alive.clear()
    if not outcome:
        raise ReadTimeoutError(path, f"{_TIMEOUT} {seconds:g} s")
    result, error = outcome.pop()
    try:
        if error is not None:
            raise error
        return result
    finally:
        del error  # it refers to this frame: together they would keep the open file in memory
