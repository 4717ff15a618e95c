"""What commands print: text of users stands as it is, never as markup, whatever its letters."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

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


def table(texts: Sequence[str], numbers: Sequence[str], **options: Any) -> Table:
    """Returns a table without rows.

    Args:
        texts: Headings of its first columns, aligned to the left.
        numbers: Headings of the others, aligned to the right.
        **options: As of `rich.table.Table`.
    """
    made = Table(caption_justify="left", title_justify="left", **options)
    for heading in texts:
        made.add_column(heading, overflow="fold")
    for heading in numbers:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


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
