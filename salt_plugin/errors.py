"""Errors that a user can mend: each names the file or key, what was found and the fix."""

from __future__ import annotations

import os
import signal


class SaltError(Exception):
    """Base of every error that entry points print without a traceback."""

    @property
    def exit_status(self) -> int:
        """Status to end with; 75 (`EX_TEMPFAIL`): the same command goes on."""
        return 1


class ConfigError(SaltError):
    """A configuration key or value that cannot work."""


class ShapeError(SaltError, ValueError):
    """A tensor of another shape or type than a model takes."""


class DataError(SaltError):
    """An input folder, list or video that cannot be read."""


class CheckpointError(SaltError):
    """An encoder file, run directory or training checkpoint that does not fit."""


class Interrupted(SaltError):  # noqa: N818  it is no mistake
    """Training was asked to stop by a signal, and has saved what it had done.

    Args:
        message: What was saved, and how to go on.
        signal_number: The signal.

    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """75, or 130 after Ctrl-C."""
        return 130 if self.signal_number == signal.SIGINT else os.EX_TEMPFAIL


class CacheError(SaltError):
    """The user's cache cannot be used."""


class LoaderError(SaltError):
    """The processes that read videos give no batch."""


class LostOthersError(SaltError):
    """A process that this one needs has ended: the same command goes on from what was saved."""

    @property
    def exit_status(self) -> int:
        """75."""
        return os.EX_TEMPFAIL
