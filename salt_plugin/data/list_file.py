"""Lists of videos: text files that name paths and labels, one video a line."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from salt_plugin.data.list_layout import (
    EXPECTED,
    NUMBER,
    Numbered,
    choose_layout,
    is_number,
    shown_lines,
)
from salt_plugin.errors import DataError

LIST_SUFFIXES = (".csv", ".tsv", ".txt")
# Linux opens no path of more than 4096 bytes.
MAX_LINE = 2**14
_SAMPLE = 50  # lines

Label = int | str | None


class ListedVideos(NamedTuple):
    """What a list holds.

    Attributes:
        paths: Absolute paths.
        labels: Of each: a number, a name, or None.
        understood: How the list was read, in words.
    """

    paths: list[str]
    labels: list[Label]
    understood: str


def read_list(file: Path, suffixes: tuple[str, ...], any_label: bool = False) -> ListedVideos:
    """Reads a list of videos in the format that its first lines are in.

    Args:
        file: The list; relative paths in it count from its folder.
        suffixes: How names of videos end, in lower case.
        any_label: A label may be any text, and stays text.

    Raises:
        DataError: The file is missing, no text, or empty, has broken lines or lines longer than
            any path, or can be read in two ways.
    """
    folder = os.path.join(os.path.abspath(file.parent), "")
    sample = list(itertools.islice(_lines(file), _SAMPLE))
    if not sample:
        raise DataError(f"{file} lists no videos: expected {EXPECTED}.")
    layout = choose_layout(file, sample, suffixes, any_label)
    paths: list[str] = []
    labels: list[Label] = []
    broken: list[Numbered] = []
    known: dict[str, Label] = {}  # each class name is kept once
    value: Callable[[str], Label] | None = str if any_label else None
    for number, line in itertools.islice(_lines(file), layout.header is not None, None):
        cells = layout.split(line)
        if len(cells) != layout.width or not cells[layout.path] or "\0" in line:
            broken.append((number, line))
            continue
        path, label = cells[layout.path], "" if layout.label is None else cells[layout.label]
        if label not in known:
            if label and value is None:
                value = _name if layout.names and not is_number(label) else _number
            try:
                known[label] = value(label) if label and value else None
            except ValueError:
                broken.append((number, line))
                continue
        paths.append(path if path.startswith("/") else folder + path)
        labels.append(known[label])
    words = layout.words + (", labels are names" if value is _name else "")
    if broken:
        raise DataError(
            f"{file} has {len(broken)} broken line{'s' * (len(broken) > 1)} (read with {words}); "
            f"the first:\n{shown_lines(broken)}\nExpected {EXPECTED}; mend or remove them."
        )
    if not paths:
        raise DataError(f"{file} lists no videos, only a header: expected {EXPECTED}.")
    return ListedVideos(paths, labels, f"{file}: {len(paths):,} videos, {words}")


def _number(text: str) -> int | None:
    if not NUMBER.fullmatch(text):
        raise ValueError(text)
    return None if text == "-1" else int(text)


def _name(text: str) -> str:
    if not any(map(str.isalpha, text)):
        raise ValueError(text)
    return text


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that hold something, with their numbers, of a file that may be anyone's."""
    try:
        if not file.is_file():
            raise OSError("it is no regular file")
        with file.open("rb") as raw:
            if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise OSError("it is UTF-16; save it as UTF-8")
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as opened:
            for number in itertools.count(1):
                line = opened.readline(MAX_LINE + 1)
                if not line:
                    return
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{file}: line {number} has more than {MAX_LINE} characters: "
                        "expected a path and a label on each line; mend or remove it."
                    )
                if not line.isspace():
                    yield number, line
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file} as UTF-8 text: {error}.") from None
