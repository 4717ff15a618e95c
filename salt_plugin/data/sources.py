"""Videos to train on: in folders, in lists, or named one by one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from salt_plugin.data.folder import read_folder
from salt_plugin.data.list_file import LINE, LIST_SUFFIXES, Label, read_list
from salt_plugin.data.log_once import log_once
from salt_plugin.data.stores import LISTED, PREPARED, TAR, read_address, read_shards
from salt_plugin.errors import DataError
from salt_plugin.files import is_address
from salt_plugin.video.containers import VIDEO_SUFFIXES
from salt_plugin.video.opening import DEFAULT_READER, open_video
from salt_plugin.video.reader import VideoReadError
from salt_plugin.video.time_limit import within

# Of a folder that `salt data prepare` writes: what it has done so far.
UNFINISHED = "journal.jsonl"
_SHOWN = 5


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

    A tar file, and a folder that holds nothing else, list the videos in them, with the classes in
    members `NAME.cls`.

    Folders and lists share one numbering of their class names. Where these meet labels that are
    numbers there is no common numbering, and all labels become -1.

    Args:
        inputs: A folder, a list, a video, a tar file of videos, an address of fsspec of one of the
            latter two or of a folder; or several of these.
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
    listed = [_read_input(str(one), key, suffixes) for one in several]
    paths = [path for paths, _ in listed for path in paths]
    found = [label for _, labels in listed for label in labels]
    source = [number for number, (paths, _) in enumerate(listed) for _ in paths]
    names = sorted({label for label in found if isinstance(label, str)})
    number_of: dict[Label, int] = {name: number for number, name in enumerate(names)}
    if names and any(isinstance(label, int) for label in found):
        return VideoList(paths, [-1] * len(paths), None, source)
    labels = [label if isinstance(label, int) else number_of.get(label, -1) for label in found]
    return VideoList(paths, labels, names or None, source)


def classes_of(videos: VideoList, given: str) -> list[int | str]:
    """Returns the class of each video: a number or a name.

    Args:
        videos: The videos.
        given: Where they are listed, for messages.

    Raises:
        DataError: A video has none.
    """
    unlabelled = [path for path, at in zip(videos.paths, videos.labels, strict=True) if at < 0]
    if unlabelled:
        raise DataError(
            f"{given} has {len(unlabelled)} unlabelled of {len(videos.paths)} videos; the first is "
            f"{unlabelled[0]}: expected a class for each; remove them or label them"
        )
    names = videos.classes
    return [at if names is None else names[at] for at in videos.labels]


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
    bad: list[str] = []
    for path in videos.paths:
        try:
            within(timeout, path, partial(_first_frame, path, reader))
            return
        except VideoReadError as error:
            bad.append(f"  {path}: {error.reason}")
    shown = "\n".join(bad[:_SHOWN])
    raise DataError(
        f"none of the {len(bad)} videos in input_dir can be read; the first:\n{shown}\n"
        "Expected video files such as H.264 in mp4; `salt data check` tells more of each."
    )


def _first_frame(path: str, reader: str) -> None:
    open_video(path, reader).frames(np.zeros(1, dtype=np.int64))


def _read_input(
    given: str, key: str, suffixes: tuple[str, ...]
) -> tuple[list[str], Sequence[Label]]:
    if is_address(given):
        return read_address(given, f"{key}={given}", suffixes)
    path = Path(given)
    kind = path.suffix.lower()
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"{key}={str(path)[:120]}...: {error.strerror}; check the path") from None
    if is_folder and (path / UNFINISHED).is_file():
        if not (path / PREPARED).is_file():
            raise DataError(
                f"{key}={path} was begun by salt data prepare and is not finished: give the same "
                "command again"
            )
        path, kind = path / PREPARED, ".csv"
    elif is_folder:
        return read_folder(path, key, suffixes)
    if not is_there:
        raise DataError(
            f"{key}={path} does not exist: expected a folder of videos, a list (CSV) or a video; "
            "check the path."
        )
    if kind in LIST_SUFFIXES:
        listed = read_list(path, LISTED)
        log_once(listed.understood)
        return listed.paths, listed.labels
    if kind == TAR:
        return read_shards([os.path.abspath(path)], f"{key}={path}", suffixes)
    if kind in suffixes:
        return [os.path.abspath(path)], [None]
    raise DataError(
        f"{key}={path} is neither a folder nor a .csv file (or {', '.join(LIST_SUFFIXES[1:])}), "
        f"nor a tar file, nor a video ({', '.join(suffixes)}): put videos in a folder, or list "
        f"them, one line {LINE} each."
    )
