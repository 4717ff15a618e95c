"""Which format a list of videos is in, told from its first lines."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from salt_plugin.data import list_format as of
from salt_plugin.data.list_format import ListFormat, Split
from salt_plugin.errors import DataError

_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "video", "videos")
_PATH_NAMES = (*_PATHS, "video_path", "video_name", "clip", "image", "image_path", "name")
# The first that is there is taken.
_LABELS = ("label", "class", "target", "category", "labels", "label_id", "class_id")
_LABEL_NAMES = (*_LABELS, "class_name", "label_name", "group")
_TRIED = 5  # files that are looked for where lines can be read in two ways


def choose_format(
    file: Path,
    sample: Sequence[tuple[int, str]],
    folder: str,
    suffixes: Sequence[str],
    any_label: bool = False,
) -> ListFormat:
    """Returns the format of a list.

    Where lines can be read in two ways, a few of the files are looked for.

    Args:
        file: The list, for messages.
        sample: Its first lines that hold something, with their numbers; at least one.
        folder: Where relative paths count from, with a slash at the end.
        suffixes: How names of videos end, in lower case.
        any_label: A label may be any text.

    Raises:
        DataError: Lines can be read in two ways, and no file decides.
    """
    look = _Look([line for _, line in sample], folder, tuple(suffixes), any_label)
    formats = look.formats()
    fits = [how for how in formats if all(how.parse(line) for line in look.body(how))]
    if not fits:
        # The first video decides, so that the other lines are named as broken.
        return next((how for how in formats if how.parse(look.body(how)[0])), formats[0])
    clear = [how for how in fits if not look.is_doubtful(how, fits)]
    if clear[:1] != [look.spaced]:
        clear = [how for how in fits if look.exists(how)] or clear
    if not clear or clear[0].unclear:
        reason = clear[0].unclear if clear else "and no such files are there"
        raise DataError(
            f"{file} can be read in more than one way, {reason}; the first lines:\n"
            f"{of.shown_lines(sample)}\nExpected {of.EXPECTED}. A header with the names `path` "
            "and `label` tells which column is which."
        )
    return clear[0]


class _Look:
    """What the first lines of a list look like; arguments as of `choose_format`."""

    def __init__(
        self, lines: list[str], folder: str, suffixes: tuple[str, ...], any_label: bool
    ) -> None:
        self.lines = lines
        self.folder = folder
        self.suffixes = suffixes
        self.any_label = any_label
        ends = "|".join(re.escape(suffix) for suffix in suffixes)
        self._column_inside = re.compile(rf'(?:{ends})"?\s*[,;\t ]|[,;]$', re.IGNORECASE)
        self.spaced = self._spaced()

    def formats(self) -> list[ListFormat]:
        """Returns a format for each way to split the lines that could be meant."""
        found = [self.spaced, self._paths()]
        found += [self._columns(separator, of.at(separator)) for separator in "\t,;"]
        found.append(self._columns(" ", of.after_suffix(self.suffixes)))
        return [how for how in found if how is not None]

    def body(self, how: ListFormat) -> list[str]:
        """Returns the lines without the header."""
        return self.lines[how.header is not None :]

    def exists(self, how: ListFormat) -> bool:
        """Tells whether one of the first paths is there."""
        found = (how.parse(line) for line in self.body(how)[:_TRIED])
        return any(
            one is not None and os.path.exists(os.path.join(self.folder, one[0])) for one in found
        )

    def is_doubtful(self, how: ListFormat, fits: Sequence[ListFormat]) -> bool:
        """Tells whether paths look as if they held another column."""
        if how is self.spaced:
            return any(self._holds_columns(how.split(line)) for line in self.body(how))
        named = [one for one in fits if one.separator not in (" ", None)]
        if how.separator is None:
            first = [line.split()[0] for line in self.body(how)]
            return bool(named) or all(of.is_number(one) for one in first)
        rival = any(one.separator is None for one in fits)
        return rival and how in named and how.value is not of.number_or_none

    def _holds_columns(self, cells: list[str]) -> bool:
        path, label = cells
        inside = not self._is_video(path) and self._column_inside.search(path)
        return bool(inside) or self._is_video(label.strip('"'))

    def _is_video(self, text: str) -> bool:
        return text.lower().endswith(self.suffixes)

    def _split(self, plain: Split, without_quotes: Split) -> Split:
        quoted = [path for line in self.lines if of.is_quoted(path := (plain(line) or [""])[0])]
        if quoted and not any(
            os.path.exists(os.path.join(self.folder, path)) for path in quoted[:_TRIED]
        ):
            return without_quotes
        return plain

    def _paths(self) -> ListFormat | None:
        """Returns the format without labels, if lines end as videos do, or are files."""
        split = self._split(of.whole, of.whole_unquoted)
        first = split(self.lines[0])[0]
        header = self.lines[0] if first.lower() in _PATH_NAMES and len(self.lines) > 1 else None
        how = ListFormat(None, split, 1, 0, None, of.any_text, header)
        videos = sum(self._is_video(split(line)[0]) for line in self.body(how))
        return how if 2 * videos > len(self.body(how)) or self.exists(how) else None

    def _spaced(self) -> ListFormat:
        """Returns the format `path label`; the path may hold spaces."""
        split = self._split(of.last_space, of.last_space_unquoted)
        rows = [split(line) for line in self.lines]
        header = self.lines[0] if self._is_header(rows[0], rows[1:]) else None
        value: of.Value = of.any_text if self.any_label else of.number
        return ListFormat(" ", split, 2, 0, 1, value, header)

    def _columns(self, separator: str, split: Split) -> ListFormat | None:
        """Returns the format of columns, if most lines have the same number of them."""
        rows = [split(line) for line in self.lines]
        found = Counter(len(row) for row in rows if row).most_common(1)
        columns = found[0][0] if found else 0
        if columns < 2:
            return None
        first = rows[0] or self.lines[0].split()
        body = [row for row in rows[1:] if len(row) == columns]
        header, names = None, []
        if len(first) == columns and self._is_header(first, body):
            header, names = self.lines[0], _names(first)
        else:
            body = [row for row in rows if len(row) == columns]
        path = next((n for n, one in enumerate(names) if one in _PATH_NAMES), None)
        if path is None:
            ending = [n for n in range(columns) if self._are_videos(body, n)]
            path = ending[0] if len(ending) == 1 else 0
        label, unclear = _label(names, body, path, separator)
        cells = [row[label] for row in body if label is not None and row[label]]
        value: of.Value = of.number_or_none if cells and of.is_number(cells[0]) else of.name
        if self.any_label:
            value = of.any_text
        return ListFormat(separator, split, columns, path, label, value, header, unclear)

    def _are_videos(self, rows: Sequence[list[str]], column: int) -> bool:
        return 2 * sum(self._is_video(row[column]) for row in rows) > len(rows)

    def _is_header(self, first: list[str], body: list[list[str]]) -> bool:
        """Tells whether the cells of the first line are names of columns."""
        line, names = self.lines[0], _names(first)
        known = [one for one in names if one in _PATH_NAMES or one in _LABEL_NAMES]
        if "/" in line or any(self._is_video(one) or of.is_number(one) for one in first):
            return False
        if self._column_inside.search(line) or not body:
            return len(known) == len(first)
        columns = range(len(first))
        alike = any(
            self._are_videos(body, n) or all(of.NUMBER.fullmatch(row[n]) for row in body)
            for n in columns
        )
        return bool(known) or (all(first) and alike)


def _names(first: list[str]) -> list[str]:
    return [cell.lower().lstrip("# ") for cell in first]


def _label(
    names: list[str], body: Sequence[list[str]], path: int, separator: str
) -> tuple[int | None, str | None]:
    """Returns the column of the label, and why it is not clear."""
    for one in _LABEL_NAMES:
        if one in names and names.index(one) != path:
            return names.index(one), None
    columns = len(body[0]) if body else 0
    others = [n for n in range(columns) if n != path and any(row[n] for row in body)]
    if len(others) < 2:
        return (others[0] if others else None), None
    numbers = [n for n in others if all(of.NUMBER.fullmatch(row[n]) for row in body)]
    listed = " or ".join(str(n + 1) for n in others)
    clear = others[0] in numbers and (separator != " " or len(numbers) == 1) and not names
    return others[0], None if clear else f"as column {listed} may be the label"
