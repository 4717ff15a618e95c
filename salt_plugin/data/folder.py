"""Videos in a folder and below it."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from salt_plugin.data.list_file import Label
from salt_plugin.data.log_once import log_once
from salt_plugin.data.stores import TAR, read_shards
from salt_plugin.errors import DataError
from salt_plugin.video.images import IMAGE_SUFFIXES

_SHOWN = 5
_SPLIT = re.compile(r"(train|training|val|valid|validation|dev|test|testing|eval)(?![a-z])")


def read_folder(
    folder: Path, key: str, suffixes: tuple[str, ...]
) -> tuple[list[str], Sequence[Label]]:
    """Lists the videos in a folder and below it, with the first sub-folder of each as its class.

    Args:
        folder: The folder.
        key: Where it is given, for messages.
        suffixes: How names of videos end, in lower case.

    Raises:
        DataError: It holds none.
    """
    paths: list[str] = []
    shards: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    hidden = 0
    root = os.path.abspath(folder)

    def warn(error: OSError) -> None:
        log_once(f"{key}={folder}: cannot open {error.filename}", logging.WARNING)

    for place, folders, files in os.walk(root, followlinks=True, onerror=warn):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden += sum(name.startswith(".") for name in [*folders, *files])
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            if name.lower().endswith(suffixes):
                paths.append(os.path.join(place, name))
            elif name.endswith(TAR):
                shards.append(os.path.join(place, name))
            else:
                left_out[os.path.splitext(name)[1].lower() or "without a suffix"] += 1
    if paths and shards:
        left_out[TAR] = len(shards)
    what = "images" if suffixes == IMAGE_SUFFIXES else "videos"
    ordered = sorted(left_out.items(), key=lambda one: (-one[1], one[0]))[: 2 * _SHOWN]
    others = "; left out: " * bool(ordered) + ", ".join(f"{n:,} {kind}" for kind, n in ordered)
    others += f"; hidden (their names begin with a dot): {hidden:,}" if hidden else ""
    if shards and not paths:
        found, labels = read_shards(shards, f"{key}={folder}", suffixes)
        log_once(f"{key}={folder}: {len(found):,} {what} in {len(shards):,} tar files{others}")
        return found, labels
    log_once(f"{key}={folder}: {len(paths):,} {what}{others}")
    if not paths:
        images = bool(left_out.keys() & set(IMAGE_SUFFIXES))
        raise DataError(
            f"{key}={folder} holds no {what}: expected files ending in {', '.join(suffixes)}, in "
            f"it or in its sub-folders{others}."
            + " Images, and folders of frames, are named in a list: a line `frames/a 3` for each, "
            "or `frames/a/` without a class." * images
        )
    inside = [os.path.relpath(path, root).split(os.sep)[:-1] for path in paths]
    _warn_of_splits(f"{key}={folder}", root, inside)
    return paths, [folders[0] if folders else None for folders in inside]


def _warn_of_splits(given: str, root: str, inside: list[list[str]]) -> None:
    """Warns where parts of a data set, such as `train`, are read as classes."""
    below: defaultdict[str, set[str]] = defaultdict(set)
    for folders in inside:
        if len(folders) > 1 and _SPLIT.match(folders[0].lower()):
            below[folders[0]].add(folders[1])
    held = Counter(one for classes in below.values() for one in classes)
    shared = sorted(one for one, count in held.items() if count > 1)
    if shared:
        parts = sorted(below)
        shown = ", ".join(shared[:_SHOWN]) + ", ..." * (len(shared) > _SHOWN)
        log_once(
            f"{given}: {' and '.join(map(repr, parts))} look like the parts of a data set, for "
            f"they hold the same folders ({shown}). They are read as {len(parts)} classes, and all "
            f"are trained on. Give one of them instead, such as {os.path.join(root, parts[0])}; "
            "where all are meant, give them as a list",
            logging.WARNING,
        )
