"""Lists of videos: text files that name paths and labels, one video a line.

The first lines tell how lines are cut. Layouts are tried in this order:

1. Columns between tabs, commas or semicolons, with the quotes of CSV files. The path is the column
   that the header names, else the first that holds videos, else the first, which is then taken for
   paths where the second holds whole numbers.
2. A path a line, where most end in the suffix of a video.
3. `path label` split at the last space, the label a whole number.

The label is the column that the header names, else the only one, or the only whole number beside
the path. Labels are all whole numbers (-1: none) or all names.
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
from salt_plugin.video.storage import absolute

LIST_SUFFIXES = (".csv", ".tsv", ".txt")
LINE = "`path label` (a space, then a whole number of -1 or more)"
# Linux opens no path of more than 4096 bytes.
MAX_LINE = 2**14

_EXPECTED = (
    f"{LINE} on each line; or columns between commas, semicolons or tabs, with double quotes "
    "around a path that holds one, and labels that are all whole numbers or all names; a folder of "
    "frames without a label ends in /"
)
_NUMBER = re.compile(r"-1|[0-9]{1,18}")
# Where a header has several, the first of these is taken.
_PATHS = ("path", "video_path", "file_path", "filepath", "filename", "file", "video", "name")
_LABELS = ("label", "labels", "label_id", "target", "class", "category", "class_name", "group")
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
    """How lines are cut; `label` is None where there are no labels."""

    words: str
    split: Callable[[str], list[str]]
    width: int = 2
    path: int = 0
    label: int | None = 1
    header: bool = False
    names: bool = False  # whether labels may be names


def read_list(
    file: Path, suffixes: tuple[str, ...], any_label: bool = False, at: str | None = None
) -> ListedVideos:
    """Reads a list of videos in the format that its first lines are in.

    Args:
        file: The list; relative paths in it count from its folder.
        suffixes: How names of videos end, in lower case.
        any_label: A label may be any text, and stays text.
        at: The address that it is a copy of: paths in it count from there.

    Raises:
        DataError: The file is missing, no text, or empty, has broken lines or lines longer than
            any path, or can be read in two ways.
    """
    folder = (at or os.path.abspath(file)).rpartition("/")[0] + "/"
    sample = list(itertools.islice(_lines(file), _SAMPLE))
    if not sample:
        raise DataError(f"{file} lists no videos: expected {_EXPECTED}.")
    layout = _layout(file, sample, suffixes, any_label)
    paths: list[str] = []
    labels: list[Label] = []
    broken: list[Numbered] = []
    known: dict[str, Label] = {"": None}  # each class name is kept once
    kind = "any" if any_label else ""
    for number, line in itertools.islice(_lines(file), layout.header, None):
        cells = layout.split(line)
        if len(cells) != layout.width or not cells[layout.path] or "\0" in line:
            broken.append((number, line))
            continue
        path, label = cells[layout.path], "" if layout.label is None else cells[layout.label]
        if label not in known:
            kind = kind or ("name" if layout.names and not _is_number(label) else "number")
            if not _fits(label, kind):
                broken.append((number, line))
                continue
            known[label] = label if kind != "number" else None if label == "-1" else int(label)
        paths.append(absolute(path, folder))
        labels.append(known[label])
    words = layout.words + (", labels are names" if kind == "name" else "")
    if broken:
        raise DataError(
            f"{file} has {len(broken)} broken line{'s' * (len(broken) > 1)} (read with {words}); "
            f"the first:\n{_shown(broken)}\nExpected {_EXPECTED}; mend or remove them."
        )
    if not paths:
        raise DataError(f"{file} lists no videos, only a header: expected {_EXPECTED}.")
    return ListedVideos(paths, labels, f"{file}: {len(paths):,} videos, {words}")


def _fits(label: str, kind: str) -> bool:
    if kind == "name":
        return any(map(str.isalpha, label))
    return kind == "any" or bool(_NUMBER.fullmatch(label))


def _lines(file: Path) -> Iterator[Numbered]:
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


def _layout(
    file: Path, sample: Sequence[Numbered], suffixes: tuple[str, ...], any_label: bool
) -> _Layout:
    """Returns how a list is read, from its first lines that hold something."""
    for separator in "\t,;":
        if found := _columns(separator, sample, file, suffixes):
            return found
    lines = [line.strip() for _, line in sample]
    ends = [line for line in lines if line.strip('"').lower().endswith(suffixes)]
    if not any_label and 2 * len(ends) >= len(lines):
        if all(re.search(r"[,;\t]|^-?\d+\s", line) for line in ends):
            raise _unclear(file, sample, "as paths alone, or as paths with something before them")

        def whole(line: str) -> list[str]:
            path = line.strip().strip('"')
            return [path] if path.lower().endswith(suffixes) else []

        header = _name_of(lines[0]) in _PATHS
        words = "a path a line, no labels" + ", header skipped" * header
        return _Layout(words, whole, width=1, label=None, header=header)
    header = _at_last_space(lines[0])[1].lower() in _LABELS
    words = "separator ' '" + f", header {lines[0]!r} skipped" * header
    return _Layout(words, _at_last_space, header=header)


def _columns(
    separator: str, sample: Sequence[Numbered], file: Path, suffixes: tuple[str, ...]
) -> _Layout | None:
    """Returns a layout of columns, None if the lines do not hold them."""

    def split(line: str) -> list[str]:
        try:
            rows = csv.reader([line.strip("\r\n")], delimiter=separator, strict=True)
            return [cell.strip() for cell in next(rows)]
        except csv.Error:
            return []

    rows = [split(line) for _, line in sample]
    width = Counter(map(len, rows)).most_common(1)[0][0]
    names = [_name_of(cell) for cell in rows[0]]
    named = not {*_PATHS, *_LABELS}.isdisjoint(names)
    header = named and not any(
        _is_number(cell) or cell.lower().endswith(suffixes) for cell in rows[0]
    )
    body = [row for row in rows[header:] if len(row) == width]
    if width < 2 or (header and len(names) != width):
        return None
    names = names if header else []
    ends = [sum(row[at].lower().endswith(suffixes) for row in body) for at in range(width)]
    videos = [at for at in range(width) if 2 * ends[at] > len(body)]
    numbers = [at for at in range(width) if all(_NUMBER.fullmatch(row[at]) for row in body)]
    if not header:
        inside = any(f"{end} " in row[0].lower() for row in body for end in suffixes)
        if 0 not in videos and (width > 2 or 1 not in numbers or inside):
            return None
        if ends[0] == len(body) - 1 and body and not rows[0][0].lower().endswith(suffixes):
            raise _unclear(file, sample, "and line 1 looks like a header of other names")
    label = next((names.index(name) for name in _LABELS if name in names), None)
    path = next((names.index(name) for name in _PATHS if name in names), None)
    if path is None:
        path = next(at for at in [*videos, *range(width)] if at != label)
    others = [at for at in range(width) if at != path and any(row[at] for row in body)]
    if label is None and others:
        label = others[0]
        if len(others) > 1 and (header or [at for at in others if at in numbers] != [label]):
            columns = " or ".join(str(at + 1) for at in others)
            raise _unclear(file, sample, f"as column {columns} may be the label")
    unused = [str(at + 1) for at in range(width) if at not in (path, label)]
    words = (
        f"separator {separator!r}",
        f"header {sample[0][1].strip()[:80]!r} skipped" * header,
        f"path in column {path + 1}" * (path != 0),
        "no labels" if label is None else f"label in column {label + 1}" * (label != path + 1),
        f"column{'s' * (len(unused) > 1)} {', '.join(unused)} not used" * bool(unused),
    )
    return _Layout(", ".join(filter(None, words)), split, width, path, label, header, names=True)


def _at_last_space(line: str) -> list[str]:
    path, _, label = line.strip().rpartition(" ")
    return [path.strip().strip('"'), label]


def _name_of(cell: str) -> str:
    """Returns the name of a column as headers write it."""
    return cell.strip().lower().lstrip("# ").replace(" ", "_")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unclear(file: Path, sample: Sequence[Numbered], reason: str) -> DataError:
    return DataError(
        f"{file} can be read in more than one way, {reason}; the first lines:\n{_shown(sample)}\n"
        f"Expected {_EXPECTED}. A header with the names `path` and `label` between the same "
        "separators tells which column is which."
    )


def _shown(lines: Sequence[Numbered]) -> str:
    shown = (f"  line {number}: {line.strip()[:120]!r}" for number, line in lines[:_SHOWN])
    return "\n".join(shown)
