"""How a line of a list of videos is cut into a path and a label."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LINE = "`path label` (a space, then a whole number of -1 or more)"
EXPECTED = (
    f"{LINE} on each line; or columns between commas, semicolons or tabs, with double quotes "
    "around a path that holds one, and labels that are all whole numbers or all names"
)
NUMBER = re.compile(r"-1|[0-9]{1,18}")
_SHOWN = 5

Label = int | str | None
Split = Callable[[str], list[str]]
Value = Callable[[str], Label]


@dataclass(frozen=True)
class ListFormat:
    """How the lines of a list are read.

    Attributes:
        separator: Between columns; None: a line is a path.
        split: Returns the cells of a line.
        columns: Number of cells.
        path: Column of the path, from 0.
        label: Column of the label; None: there are no labels.
        value: Returns the label of a cell; a ValueError says that it is none.
        header: The first line, where it is no video.
        unclear: Why it is not clear which column is the label.
    """

    separator: str | None
    split: Split
    columns: int
    path: int
    label: int | None
    value: Value
    header: str | None = None
    unclear: str | None = None

    def parse(self, line: str) -> tuple[str, Label] | None:
        """Returns path and label of a line, None where it is broken."""
        cells = self.split(line)
        if len(cells) != self.columns or not cells[self.path] or "\0" in line:
            return None
        try:
            return cells[self.path], None if self.label is None else self.value(cells[self.label])
        except ValueError:
            return None

    def in_words(self) -> str:
        """Returns what was understood, for the log and for errors."""
        words = ["a path a line" if self.separator is None else f"separator {self.separator!r}"]
        if self.header is not None:
            words.append(f"header {self.header.strip()[:80]!r} skipped")
        if self.path != 0:
            words.append(f"path in column {self.path + 1}")
        if self.label is None:
            words.append("no labels")
        else:
            if (self.path, self.label) != (0, 1):
                words.append(f"label in column {self.label + 1}")
            if self.value is name:
                words.append("labels are names")
        unused = [str(n + 1) for n in range(self.columns) if n not in (self.path, self.label)]
        if unused:
            words.append(f"column{'s' * (len(unused) > 1)} {', '.join(unused)} not used")
        return ", ".join(words)


def shown_lines(lines: Sequence[tuple[int, str]]) -> str:
    """Returns the first of some numbered lines, for a message."""
    shown = (f"  line {number}: {line.strip()[:120]!r}" for number, line in lines[:_SHOWN])
    return "\n".join(shown)


def number(text: str) -> int | None:
    """Returns a label that is a number, None for -1."""
    if not NUMBER.fullmatch(text):
        raise ValueError(text)
    return None if text == "-1" else int(text)


def number_or_none(text: str) -> int | None:
    """Returns a label that is a number, None for -1 or an empty cell."""
    return number(text) if text else None


def name(text: str) -> str | None:
    """Returns a label that is a name, None for an empty cell."""
    if is_number(text):
        raise ValueError(text)
    return text or None


def any_text(text: str) -> str:
    """Returns a label that may be anything but empty."""
    if not text:
        raise ValueError(text)
    return text


def is_number(text: str) -> bool:
    """Tells whether a text is a number of any kind."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def unquoted(path: str) -> str:
    """Returns a path without the double quotes around it."""
    return path[1:-1].replace('""', '"') if is_quoted(path) else path


def is_quoted(path: str) -> bool:
    """Tells whether a path stands in double quotes."""
    return len(path) > 2 and path[0] == path[-1] == '"'


def last_space(line: str) -> list[str]:
    """Splits `path label`; the path may hold spaces."""
    path, _, label = line.strip().rpartition(" ")
    return [path.strip(), label]


def last_space_unquoted(line: str) -> list[str]:
    """Splits `"path" label`."""
    path, label = last_space(line)
    return [unquoted(path), label]


def whole(line: str) -> list[str]:
    """Returns a line that is a path."""
    return [line.strip()]


def whole_unquoted(line: str) -> list[str]:
    """Returns a line that is a path in quotes."""
    return [unquoted(line.strip())]


def at(separator: str) -> Split:
    """Returns what splits a line of a CSV file; an unclosed quote gives no cells."""

    def split(line: str) -> list[str]:
        if '"' not in line:
            return [cell.strip() for cell in line.split(separator)]
        line = line.rstrip("\r\n")
        try:
            row = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
        except csv.Error:
            return []
        return [cell.strip() for cell in row]

    return split


def after_suffix(suffixes: Sequence[str]) -> Split:
    """Returns what splits `path label ...` behind the suffix of the path, or its quotes."""
    ends = "|".join(re.escape(suffix) for suffix in suffixes)
    pattern = re.compile(rf'(".*"|.*(?:{ends}))\s+(\S.*)', re.IGNORECASE)

    def split(line: str) -> list[str]:
        line = line.strip()
        found = None if line.lower().endswith(tuple(suffixes)) else pattern.fullmatch(line)
        return [unquoted(found[1].strip()), *found[2].split()] if found else []

    return split
