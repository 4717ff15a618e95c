"""What commands print: text of users stands as it is, never as markup, whatever its letters."""

from __future__ import annotations

import io
import logging
import sys

from rich.console import Console

# Of a table that goes to a file or a pipe.
WIDTH = 200


def console(stderr: bool = False) -> Console:
    """Returns a console that prints text as it is, and does not fold tables in files and pipes.

    Args:
        stderr: Whether it prints to standard error.
    """
    accept_any_name()
    plain = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if plain.is_terminal:
        return plain
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=WIDTH)


def accept_any_name() -> None:
    r"""Lets standard output show names of files that are not UTF-8, as `\udce9` for a byte E9."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def show_log() -> None:
    """Shows on standard error what this package logs, where no application does."""
    accept_any_name()
    logger = logging.getLogger("salt_plugin")
    if not any(isinstance(handler, _Shown) for handler in logger.handlers):
        logger.addHandler(_Shown())
        logger.setLevel(logging.INFO)


class _Shown(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record to what standard error is now."""
        print(self.format(record), file=sys.stderr)
