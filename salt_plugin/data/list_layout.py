"""How the lines of a list of videos are cut, told from the first ones.

Layouts are tried in this order:

1. Columns between tabs, commas or semicolons, with the quotes of CSV files. The path is the column
   that the header names, else the first, which then holds videos, or anything before whole numbers.
2. `path label ...` behind the suffix of a video: path and class name may hold spaces.
3. `path label` split at the last space, the label a whole number.
4. A path a line, each with the suffix of a video.

The label is the column that the header names, else the only one, or the only whole number beside
the path. Labels are all whole numbers (-1: none) or all names. What fits more than one meaning is
an error, never a guess.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from salt_plugin.errors import DataError

LINE = "`path label` (a space, then a whole number of -1 or more)"
EXPECTED = (
    f"{LINE} on each line; or columns between commas, semicolons or tabs, with double quotes "
    "around a path that holds one, and labels that are all whole numbers or all names"
)
NUMBER = re.compile(r"-1|[0-9]{1,18}")
# Where a header has several, the first of these is taken.
_PATH_NAMES = ("path", "video_path", "file_path", "filepath", "filename", "file", "video", "name")
_LABEL_NAMES = ("label", "labels", "label_id", "target", "class", "category", "class_name", "group")
_SHOWN = 5

Numbered = tuple[int, str]


class Layout(NamedTuple):
    """How lines are cut; `label` is None where there are no labels, `header` the line skipped."""

    words: str
    split: Callable[[str], list[str]]
    width: int
    path: int = 0
    label: int | None = 1
    header: str | None = None
    names: bool = True  # whether labels may be names


def choose_layout(
    file: Path, sample: Sequence[Numbered], suffixes: tuple[str, ...], any_label: bool
) -> Layout:
    """Returns how a list is read.

    Args:
        file: The list, for messages.
        sample: Its first lines that hold something, with their numbers; at least one.
        suffixes: How names of videos end, in lower case.
        any_label: A label may be any text.

    Raises:
        DataError: The lines can be read in two ways.
    """
    lines = [line for _, line in sample]
    for separator in "\t,;":
        if found := _columns(repr(separator), _cells(separator), sample, file, suffixes):
            return found
    if not any_label and (
        found := _columns("' '", _behind_suffix(suffixes), sample, file, suffixes)
    ):
        return found
    rows = [_at_last_space(line) for line in lines]
    labelled = sum(any_label or bool(NUMBER.fullmatch(label)) for _, label in rows)
    if 2 * labelled >= len(rows):
        is_header = rows[0][1].lower() in _LABEL_NAMES
        words = "separator ' '" + (f", header {lines[0].strip()!r} skipped" if is_header else "")
        header = lines[0] if is_header else None
        return Layout(words, _at_last_space, 2, header=header, names=False)
    ends = [line for line in lines if _is_video(line.strip().strip('"'), suffixes)]
    if 2 * len(ends) >= len(lines):
        if all(re.search(r"[,;\t]|^\s*-?\d+\s", line) for line in ends):
            raise _unclear(file, sample, "as paths alone, or as paths with something before them")
        named = _name_of(lines[0]) in _PATH_NAMES
        words = "a path a line, no labels" + (", header skipped" if named else "")
        header = lines[0] if named else None
        return Layout(words, _whole(suffixes), 1, label=None, header=header)
    return Layout("separator ' '", _at_last_space, 2, names=False)


def _columns(
    separator: str,
    split: Callable[[str], list[str]],
    sample: Sequence[Numbered],
    file: Path,
    suffixes: tuple[str, ...],
) -> Layout | None:
    """Returns a layout of columns, None if the lines do not hold them."""
    rows = [split(line) for _, line in sample]
    width = Counter(map(len, rows)).most_common(1)[0][0]
    first = rows[0] or sample[0][1].split()
    names = [_name_of(cell) for cell in first]
    is_header = not {*_PATH_NAMES, *_LABEL_NAMES}.isdisjoint(names) and not any(
        is_number(cell) or _is_video(cell, suffixes) for cell in first
    )
    body = [row for row in rows[is_header:] if len(row) == width]
    if width < 2 or (is_header and len(names) != width) or (separator == "' '" and [] in rows[1:]):
        return None
    names = names if is_header else []
    videos = [
        at
        for at in range(width)
        if 2 * sum(_is_video(row[at], suffixes) for row in body) > len(body)
    ]
    if not names:
        numbered = width == 2 and all(NUMBER.fullmatch(row[1]) for row in body)
        behind = _behind_suffix(suffixes)
        inside = any(behind(row[0]) for row in body)
        if not body or (0 not in videos and (inside or not numbered)):
            return None
        if not _is_video(rows[0][0], suffixes) and all(
            _is_video(row[0], suffixes) for row in body[1:] or [[""]]
        ):
            raise _unclear(file, sample, "and line 1 looks like a header of other names")
    label = next((names.index(name) for name in _LABEL_NAMES if name in names), None)
    path = next((names.index(name) for name in _PATH_NAMES if name in names), None)
    if path is None:
        found = [at for at in videos if at != label] or [at for at in (0,) if at != label]
        if len(found) != 1:
            raise _unclear(file, sample, "and the header does not say where the path is")
        path = found[0]
    others = [at for at in range(width) if at != path and any(row[at] for row in body)]
    numbers = [at for at in others if all(NUMBER.fullmatch(row[at]) for row in body)]
    if label is None and others:
        label = others[0]
        if len(others) > 1 and (names or numbers != [label]):
            columns = " or ".join(str(at + 1) for at in others)
            raise _unclear(file, sample, f"as column {columns} may be the label")
    words = [f"separator {separator}"]
    if is_header:
        words.append(f"header {sample[0][1].strip()[:80]!r} skipped")
    if path != 0:
        words.append(f"path in column {path + 1}")
    if label is None:
        words.append("no labels")
    elif (path, label) != (0, 1):
        words.append(f"label in column {label + 1}")
    if unused := [str(at + 1) for at in range(width) if at not in (path, label)]:
        words.append(f"column{'s' * (len(unused) > 1)} {', '.join(unused)} not used")
    header = sample[0][1] if is_header else None
    return Layout(", ".join(words), split, width, path, label, header)


def _cells(separator: str) -> Callable[[str], list[str]]:
    def split(line: str) -> list[str]:
        if '"' not in line:
            return [cell.strip() for cell in line.split(separator)]
        try:
            rows = csv.reader(
                [line.rstrip("\r\n")], delimiter=separator, skipinitialspace=True, strict=True
            )
            return [cell.strip() for cell in next(rows)]
        except csv.Error:
            return []

    return split


def _behind_suffix(suffixes: tuple[str, ...]) -> Callable[[str], list[str]]:
    ends = "|".join(map(re.escape, suffixes))
    pattern = re.compile(rf'(".*"|.*(?:{ends}))\s+(\S.*)', re.IGNORECASE)

    def split(line: str) -> list[str]:
        found = pattern.fullmatch(line.strip())
        if found is None or _is_video(found[2], suffixes):
            return []
        words = found[2].split()  # of one class name, where none is a number
        rest = words if any(map(is_number, words)) else [found[2]]
        return [_unquoted(found[1].strip()), *rest]

    return split


def _at_last_space(line: str) -> list[str]:
    path, _, label = line.strip().rpartition(" ")
    return [_unquoted(path.strip()), label]


def _whole(suffixes: tuple[str, ...]) -> Callable[[str], list[str]]:
    def split(line: str) -> list[str]:
        path = _unquoted(line.strip())
        return [path] if _is_video(path, suffixes) else []

    return split


def _is_video(text: str, suffixes: tuple[str, ...]) -> bool:
    return text.lower().endswith(suffixes)


def _name_of(cell: str) -> str:
    """Returns the name of a column as headers write it."""
    return cell.strip().lower().lstrip("# ").replace(" ", "_")


def _unquoted(path: str) -> str:
    quoted = len(path) > 2 and path[0] == path[-1] == '"'
    return path[1:-1].replace('""', '"') if quoted else path


def is_number(text: str) -> bool:
    """Tells whether a text is a number of any kind."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unclear(file: Path, sample: Sequence[Numbered], reason: str) -> DataError:
    return DataError(
        f"{file} can be read in more than one way, {reason}; the first lines:\n"
        f"{shown_lines(sample)}\n"
        f"Expected {EXPECTED}. A header with the names `path` and `label` between the same "
        "separators tells which column is which."
    )


def shown_lines(lines: Sequence[Numbered]) -> str:
    """Returns the first of some numbered lines, for a message."""
    shown = (f"  line {number}: {line.strip()[:120]!r}" for number, line in lines[:_SHOWN])
    return "\n".join(shown)
