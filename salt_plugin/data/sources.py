"""What there is to train on: videos in folders, in lists, or named one by one."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from salt_plugin.data.list_file import LIST_SUFFIXES, Label, read_list
from salt_plugin.data.list_layout import LINE
from salt_plugin.errors import DataError
from salt_plugin.video.images import IMAGE_SUFFIXES
from salt_plugin.video.inspection import VIDEO_SUFFIXES
from salt_plugin.video.opening import DEFAULT_READER, open_video, within
from salt_plugin.video.reader import VideoReadError

_SHOWN = 5
_SPLIT = re.compile(r"(train|training|val|valid|validation|dev|test|testing|eval)(?![a-z])")

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoList:
    """Videos and their labels.

    Attributes:
        paths: Absolute paths.
        labels: Label of each video, -1 for none.
        classes: Names of the labels, or None when they have none.
        source: Which input each video came from, numbered from 0.
    """

    paths: list[str]
    labels: list[int]
    classes: list[str] | None
    source: list[int]

    def digest(self) -> str:
        """Returns the number of videos and a digest of paths and labels."""
        lines = (f"{path}\0{label}\n" for path, label in zip(self.paths, self.labels, strict=True))
        content = "".join(lines).encode(errors="surrogateescape")
        return f"{len(self.paths)} videos, SHA-256 {hashlib.sha256(content).hexdigest()[:12]}"


def read_inputs(
    inputs: str | os.PathLike[str] | Sequence[str],
    key: str = "input_dir",
    suffixes: tuple[str, ...] = VIDEO_SUFFIXES,
) -> VideoList:
    """Lists the videos of an input, or of several, and logs what was understood.

    A folder is searched recursively, in sorted order, links followed, each real folder once, hidden
    names left out. If its sub-folders hold videos, the first-level sub-folder names a video's
    class; videos directly in the folder then have no label.

    A list is a text file with a line `path label` for each video, split at the last space, or with
    columns; a header is skipped. Relative paths count from the list, the label -1 is none, empty
    lines are ignored. Labels that are no numbers are names of classes.

    Folders and lists share one numbering of their class names. Where these meet labels that are
    numbers there is no common numbering, and all labels become -1.

    Args:
        inputs: A folder, a list, a video, or several of these.
        key: Where the input is given, for messages.
        suffixes: Which files of a folder are listed, in lower case.

    Returns:
        The videos; whether they can be read is not checked here.

    Raises:
        DataError: If an input is missing, of another kind, empty, or has lines that are broken or
            have no clear meaning.
    """
    several = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    if not several:
        raise DataError(f"{key} is an empty list: expected at least one folder or list of videos.")
    paths: list[str] = []
    found: list[Label] = []
    source: list[int] = []
    for number, one in enumerate(several):
        more_paths, more_labels = _read_input(Path(one), key, suffixes)
        paths += more_paths
        found += more_labels
        source += [number] * len(more_paths)
    names = sorted({label for label in found if isinstance(label, str)})
    number_of: dict[Label, int] = {None: -1}
    number_of.update((name, at) for at, name in enumerate(names))
    if not names:
        labels = [-1 if label is None else int(label) for label in found]
        return VideoList(paths, labels, None, source)
    if any(isinstance(label, int) for label in found):
        return VideoList(paths, [-1] * len(paths), None, source)
    return VideoList(paths, [number_of[label] for label in found], names, source)


def require_readable(
    videos: VideoList, reader: str = DEFAULT_READER, timeout: float | None = None
) -> None:
    """Opens videos until one gives a frame.

    Args:
        videos: The videos.
        reader: As of `open_video`.
        timeout: Seconds for each, None for no limit.

    Raises:
        DataError: If none does.
    """
    bad: list[VideoReadError] = []
    for path in videos.paths:
        try:
            within(timeout, path, partial(_first_frame, path, reader))
            return
        except VideoReadError as error:
            bad.append(error)
    shown = "\n".join(f"  {error.path}: {error.reason}" for error in bad[:_SHOWN])
    raise DataError(
        f"none of the {len(bad)} videos in input_dir can be read; the first:\n{shown}\n"
        "Expected video files such as H.264 in mp4; `salt data check` tells more of each."
    )


def _first_frame(path: str, reader: str) -> None:
    open_video(path, reader).frames(np.zeros(1, dtype=np.int64))


def _read_input(
    path: Path, key: str, suffixes: tuple[str, ...]
) -> tuple[list[str], Sequence[Label]]:
    kind = path.suffix.lower()
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"{key}={str(path)[:120]}...: {error.strerror}; check the path") from None
    if is_folder:
        return _read_folder(path, key, suffixes)
    if not is_there:
        raise DataError(
            f"{key}={path} does not exist: expected a folder of videos, a list (CSV) or a video; "
            "check the path."
        )
    if kind in LIST_SUFFIXES:
        listed = read_list(path, VIDEO_SUFFIXES + IMAGE_SUFFIXES)
        _say(listed.understood)
        return listed.paths, listed.labels
    if kind in suffixes:
        return [os.path.abspath(path)], [None]
    raise DataError(
        f"{key}={path} is neither a folder nor a .csv file (or {', '.join(LIST_SUFFIXES[1:])}), "
        f"nor a video ({', '.join(suffixes)}): put videos in a folder, or list them, one line "
        f"{LINE} each."
    )


def _read_folder(
    folder: Path, key: str, suffixes: tuple[str, ...]
) -> tuple[list[str], Sequence[Label]]:
    paths: list[str] = []
    labels: list[Label] = []
    left_out: Counter[str] = Counter()
    closed: list[str] = []
    below: defaultdict[str, set[str]] = defaultdict(set)
    hidden = 0
    seen: set[str] = set()
    root = os.path.abspath(folder)
    walk = os.walk(root, followlinks=True, onerror=lambda error: closed.append(error.filename))
    for place, folders, files in walk:
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden += sum(name.startswith(".") for name in [*folders, *files])
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in files if not name.startswith("."))
        found = [name for name in shown if name.lower().endswith(suffixes)]
        left_out.update(_suffix(name) for name in shown if not name.lower().endswith(suffixes))
        inside = os.path.relpath(place, root).split(os.sep)
        if found and len(inside) > 1:
            below[inside[0]].add(inside[1])
        paths += [os.path.join(place, name) for name in found]
        labels += [None if inside[0] == os.curdir else inside[0]] * len(found)
    what = "images" if suffixes == IMAGE_SUFFIXES else "videos"
    _say(f"{key}={folder}: {len(paths):,} {what}{_of_others(left_out, hidden)}")
    if closed:
        _say(f"{key}={folder}: folders that cannot be opened: {_some(closed)}", logging.WARNING)
    if not paths:
        raise DataError(
            f"{key}={folder} holds no {what}: expected files ending in {', '.join(suffixes)}, in "
            f"it or in its sub-folders{_of_others(left_out, hidden)}."
        )
    _warn_of_splits(f"{key}={folder}", root, below)
    return paths, labels


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without a suffix"


def _of_others(left_out: Counter[str], hidden: int) -> str:
    ordered = sorted(left_out.items(), key=lambda one: (-one[1], one[0]))
    words = [f"{count:,} {suffix}" for suffix, count in ordered[: 2 * _SHOWN]]
    if rest := sum(count for _, count in ordered[2 * _SHOWN :]):
        words.append(f"{rest:,} others")
    said = f"; left out: {', '.join(words)}" if words else ""
    return said + (f"; hidden (their names begin with a dot): {hidden:,}" if hidden else "")


def _warn_of_splits(given: str, root: str, below: dict[str, set[str]]) -> None:
    """Says that parts of a data set were taken for classes, of which they hold the same."""
    parts = sorted(name for name in below if _SPLIT.match(name.lower()))
    held = Counter(one for name in parts for one in below[name])
    shared = sorted(one for one, count in held.items() if count > 1)
    if shared:
        listed = " and ".join(repr(name) for name in parts)
        first = os.path.join(root, parts[0])
        _say(
            f"{given}: {listed} look like the parts of a data set, for they hold the same folders "
            f"({_some(shared)}). They are read as {len(parts)} classes, and all are trained on. "
            f"Give one of them instead, such as {first}; where all are meant, give them as a list",
            logging.WARNING,
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


@lru_cache(maxsize=1024)
def _say(text: str, level: int = logging.INFO) -> None:
    """Logs a line once in a process: lists are read again by what comes later."""
    _LOGGER.log(level, "%s", text.encode(errors="backslashreplace").decode())
