"""Lists of videos, from folders and CSV files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from salt_plugin.data.bounds import Bounds, read_lines
from salt_plugin.data.opening import DEFAULT_READER, open_video, within
from salt_plugin.data.reader import VideoReadError
from salt_plugin.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v")
ROOT_KEY = "method.data.root={}"
_SHOWN = 5
_LABEL = re.compile(r"-1|[0-9]{1,18}")
_LINE = "`path label` (a space, then a whole number of -1 or more)"


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


def read_inputs(
    inputs: str | os.PathLike[str] | Sequence[str],
    key: str = "input_dir",
    suffixes: tuple[str, ...] = VIDEO_SUFFIXES,
    root: str | None = None,
    root_key: str = ROOT_KEY,
) -> VideoList:
    """Lists the videos of an input, or of several.

    A folder is searched recursively, in sorted order, hidden names left out. If
    its sub-folders hold videos, the first-level sub-folder names a video's class; videos directly
    in the folder then have no label.

    A CSV has a line `path label` for each video, split at the last space, without a header; paths
    may be relative to the CSV, the label -1 is none, empty lines are ignored.

    Links, `..` and absolute paths are followed within the folder that is named, or that the CSV
    lies in, and within `root`; one that leads elsewhere is an error.

    Several folders share one numbering of their class names. Where folders with classes meet CSVs
    with labels there is no common numbering, and all labels become -1.

    Args:
        inputs: A folder, a CSV, or a list of these.
        key: Where the input is given, for messages.
        suffixes: Which files of a folder are listed.
        root: A further folder that files may lie in, `/` for anywhere.
        root_key: How `root` is given, `{}` for the folder, for messages.

    Returns:
        The videos; whether they can be read is not checked here.

    Raises:
        DataError: If an input is missing, of another kind, empty, has broken lines, or leads to
            files elsewhere.
    """
    several = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    if not several:
        raise DataError(f"{key} is an empty list: expected at least one folder or CSV file.")
    rows: list[tuple[str, int | str | None]] = []
    source: list[int] = []
    for number, one in enumerate(several):
        found = _read_input(Path(one), key, suffixes, root, root_key)
        rows += found
        source += [number] * len(found)
    names = sorted({label for _, label in rows if isinstance(label, str)})
    paths = [path for path, _ in rows]
    if not names:
        labels = [-1 if label is None else int(label) for _, label in rows]
        return VideoList(paths, labels, None, source)
    if any(isinstance(label, int) for _, label in rows):
        return VideoList(paths, [-1] * len(rows), None, source)
    number_of = {name: number for number, name in enumerate(names)}
    labels = [number_of[label] if isinstance(label, str) else -1 for _, label in rows]
    return VideoList(paths, labels, names, source)


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
    path: Path, key: str, suffixes: tuple[str, ...], root: str | None, root_key: str
) -> list[tuple[str, int | str | None]]:
    if path.is_dir():
        return list(_read_folder(path, key, suffixes, Bounds(path, root, root_key)))
    if not path.exists():
        raise DataError(
            f"{key}={path} does not exist: expected a folder of videos or a CSV file; "
            "check the path."
        )
    if path.suffix.lower() != ".csv":
        raise DataError(
            f"{key}={path} is neither a folder nor a .csv file: put videos in a folder, or "
            f"list them in a CSV, one line {_LINE} each."
        )
    return list(_read_csv(path, Bounds(path.parent, root, root_key)))


def _read_folder(
    folder: Path, key: str, suffixes: tuple[str, ...], bounds: Bounds
) -> list[tuple[str, str | None]]:
    outside: list[str] = []
    rows: list[tuple[str, str | None]] = []
    root = os.path.abspath(folder)
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if not bounds.hold(place):
            outside.append(place)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(place, root)
        label = None if inside == os.curdir else inside.split(os.sep)[0]
        found = [
            os.path.join(place, name)
            for name in sorted(files)
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
        outside += [path for path in found if not bounds.hold(path)]
        rows += [(path, label) for path in found]
    if outside:
        shown = [f"{path} -> {os.path.realpath(path)}" for path in outside[:_SHOWN]]
        raise bounds.refused(f"{key}={folder} has {len(outside)} links that lead", outside, shown)
    if not rows:
        what = "images" if suffixes == IMAGE_SUFFIXES else "videos"
        raise DataError(
            f"{key}={folder} holds no {what}: expected files ending in "
            f"{', '.join(suffixes)}, in it or in its sub-folders."
        )
    return rows


def _read_csv(file: Path, bounds: Bounds) -> list[tuple[str, int | None]]:
    outside: list[tuple[int, str]] = []
    root = os.path.abspath(file.parent)
    rows: list[tuple[str, int | None]] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if path and "\0" not in path and _LABEL.fullmatch(label):
            place = os.path.join(root, path.strip())
            rows.append((place, None if int(label) == -1 else int(label)))
            if not bounds.hold(place):
                outside.append((number, place))
        else:
            broken.append((number, line.strip()))
    if broken:
        shown = "\n".join(f"  line {number}: {line[:120]!r}" for number, line in broken[:_SHOWN])
        raise DataError(
            f"{file} has {len(broken)} broken line{'s' * (len(broken) > 1)}; the first:\n{shown}\n"
            f"Expected {_LINE} on each line; mend or remove them."
        )
    if outside:
        lines = [f"line {number}: {path[:200]!r}" for number, path in outside[:_SHOWN]]
        what = f"{file} names {len(outside)} of {len(rows)} files"
        raise bounds.refused(what, [path for _, path in outside], lines)
    if not rows:
        raise DataError(f"{file} lists no videos: expected one line {_LINE} each.")
    return rows
