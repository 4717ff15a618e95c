"""Lists of videos: text files that name paths and labels, one video a line.

The first lines decide how all are read, in this order:

1. Columns between tabs, commas or semicolons, with the quotes of CSV files. The path is the column
   that the header names, else the first, which then holds videos, or anything before whole numbers.
2. `path label ...` behind the suffix of a video: the path may hold spaces.
3. `path label` split at the last space, the label a whole number.
4. A path a line, where most lines end as videos do.

The label is the column that the header names, else the one beside the path. Labels are all whole
numbers (-1: none) or all names. What fits more than one meaning is an error, never a guess.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from salt_plugin.errors import DataError

LIST_SUFFIXES = (".csv", ".tsv", ".txt")
LINE = "`path label` (a space, then a whole number of -1 or more)"
EXPECTED = (
    f"{LINE} on each line; or columns between commas, semicolons or tabs, with double quotes "
    "around a path that holds one, and labels that are all whole numbers or all names"
)
# Linux opens no path of more than 4096 bytes.
MAX_LINE = 2**14
_PATH_NAMES = ("path", "file", "filename", "filepath", "file_path", "video", "video_path", "name")
_LABEL_NAMES = ("label", "labels", "class", "target", "category", "label_id", "class_name", "group")
_NUMBER = re.compile(r"-1|[0-9]{1,18}")
_SAMPLE = 50  # lines
_SHOWN = 5

Label = int | str | None
Numbered = tuple[int, str]


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


class _Layout(NamedTuple):
    """How lines are cut; `label` is None where there are no labels, `header` the line skipped."""

    words: str
    split: Callable[[str], list[str]]
    width: int
    path: int = 0
    label: int | None = 1
    header: str | None = None
    names: bool = True  # whether labels may be names


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
    layout = _layout(file, sample, suffixes, any_label)
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
                value = _name if layout.names and not _is_number(label) else _number
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
            f"the first:\n{_shown(broken)}\nExpected {EXPECTED}; mend or remove them."
        )
    if not paths:
        raise DataError(f"{file} lists no videos, only a header: expected {EXPECTED}.")
    return ListedVideos(paths, labels, f"{file}: {len(paths):,} videos, {words}")


def _layout(
    file: Path, sample: Sequence[Numbered], suffixes: tuple[str, ...], any_label: bool
) -> _Layout:
    lines = [line for _, line in sample]
    for separator in "\t,;":
        if found := _columns(repr(separator), _cells(separator), sample, file, suffixes):
            return found
    if not any_label and (
        found := _columns("' '", _behind_suffix(suffixes), sample, file, suffixes)
    ):
        return found
    rows = [_at_last_space(line) for line in lines]
    labelled = sum(any_label or bool(_NUMBER.fullmatch(label)) for _, label in rows)
    if 2 * labelled >= len(rows):
        is_header = rows[0][1].lower() in _LABEL_NAMES
        words = "separator ' '" + (f", header {lines[0].strip()!r} skipped" if is_header else "")
        header = lines[0] if is_header else None
        return _Layout(words, _at_last_space, 2, header=header, names=False)
    videos = sum(line.strip().strip('"').lower().endswith(suffixes) for line in lines)
    if 2 * videos >= len(lines):
        if all(re.search(r"[,;\t]|^\s*-?\d+\s", line) for line in lines):
            raise _unclear(file, sample, "as paths alone, or as paths with something before them")
        named = lines[0].strip().lower() in _PATH_NAMES
        words = "a path a line, no labels" + (", header skipped" if named else "")
        return _Layout(words, _whole, 1, label=None, header=lines[0] if named else None)
    return _Layout("separator ' '", _at_last_space, 2, names=False)


def _columns(
    separator: str,
    split: Callable[[str], list[str]],
    sample: Sequence[Numbered],
    file: Path,
    suffixes: tuple[str, ...],
) -> _Layout | None:
    """Returns a layout of columns, None if the lines do not hold them."""
    rows = [split(line) for _, line in sample]
    width = Counter(map(len, rows)).most_common(1)[0][0]
    first = rows[0] or sample[0][1].split()
    names = [cell.lower().lstrip("# ") for cell in first]
    is_header = not {*_PATH_NAMES, *_LABEL_NAMES}.isdisjoint(names) and not any(
        _is_number(cell) or cell.lower().endswith(suffixes) for cell in first
    )
    body = [row for row in rows[is_header:] if len(row) == width]
    if width < 2 or (is_header and len(names) != width) or (separator == "' '" and [] in rows[1:]):
        return None
    names = names if is_header else []
    path = next((at for at, name in enumerate(names) if name in _PATH_NAMES), 0)
    if not names:
        videos = sum(row[0].lower().endswith(suffixes) for row in body)
        numbered = width == 2 and all(_NUMBER.fullmatch(row[1]) for row in body)
        if not body or (2 * videos < len(body) and not numbered):
            return None
    others = [at for at in range(width) if at != path and any(row[at] for row in body)]
    numbers = [at for at in others if all(_NUMBER.fullmatch(row[at]) for row in body)]
    label = next((at for at, name in enumerate(names) if name in _LABEL_NAMES), None)
    if label is None and others:
        label = others[0]
        beside = label in numbers and (separator != "' '" or len(numbers) == 1)
        if len(others) > 1 and not (beside and not names):
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
    return _Layout(", ".join(words), split, width, path, label, header)


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
        if found is None or found[2].lower().endswith(suffixes):
            return []
        return [_unquoted(found[1].strip()), *found[2].split()]

    return split


def _at_last_space(line: str) -> list[str]:
    path, _, label = line.strip().rpartition(" ")
    return [_unquoted(path.strip()), label]


def _whole(line: str) -> list[str]:
    return [_unquoted(line.strip())]


def _unquoted(path: str) -> str:
    quoted = len(path) > 2 and path[0] == path[-1] == '"'
    return path[1:-1].replace('""', '"') if quoted else path


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return None if text == "-1" else int(text)


def _name(text: str) -> str:
    if _is_number(text):
        raise ValueError(text)
    return text


def _unclear(file: Path, sample: Sequence[Numbered], reason: str) -> DataError:
    return DataError(
        f"{file} can be read in more than one way, {reason}; the first lines:\n{_shown(sample)}\n"
        f"Expected {EXPECTED}. A header with the names `path` and `label` tells which column is "
        "which."
    )


def _shown(lines: Sequence[Numbered]) -> str:
    shown = (f"  line {number}: {line.strip()[:120]!r}" for number, line in lines[:_SHOWN])
    return "\n".join(shown)


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
