"""Videos in tar files, and at addresses that fsspec opens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from salt_plugin.data.list_file import LIST_SUFFIXES, Label, read_list
from salt_plugin.data.log_once import log_once
from salt_plugin.errors import DataError
from salt_plugin.video.containers import VIDEO_SUFFIXES
from salt_plugin.video.images import IMAGE_SUFFIXES
from salt_plugin.video.remote import remote_files
from salt_plugin.video.shards import read_members, shard_at
from salt_plugin.video.storage import name_of, read_bytes

TAR = ".tar"
# How what a list names may end; "/": a folder of frames.
LISTED = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, TAR, ".zip", "/")
# The list in a folder that `salt data prepare` writes.
PREPARED = "prepared.csv"
# Of a member that holds the class of the video of the same name, as webdataset has it.
_CLASS = ".cls"
_MAX_CLASS = 2**10


def read_shards(
    shards: Sequence[str], given: str, suffixes: tuple[str, ...]
) -> tuple[list[str], list[Label]]:
    """Lists the videos of tar files, with the classes in members `NAME.cls` beside them.

    Args:
        shards: Absolute paths, or addresses.
        given: Where they are named, for messages.
        suffixes: How names of videos end, in lower case.

    Raises:
        DataError: They hold no videos, or cannot be read.
    """
    paths: list[str] = []
    labels: list[Label] = []
    for path in shards:
        source = shard_at(path).source
        classes: dict[str, Label] = {}
        videos: list[str] = []
        name, end = "", 0
        for name, start, size in read_members(path, source):
            end = start + size
            if name.endswith(_CLASS) and size <= _MAX_CLASS and end <= source.state.size:
                text = source.fetch(start, start + size).decode(errors="replace").strip()
                label: Label = int(text) if text.isascii() and text.isdecimal() else text
                classes[name.removesuffix(_CLASS)] = label
            elif name.lower().endswith(suffixes):
                videos.append(name)
        if end > source.state.size:
            log_once(
                f"{path} was cut: it has {source.state.size} bytes, and its last member {name!r} "
                f"ends at {end}; what followed is not listed. Copy it again",
                logging.WARNING,
            )
        paths += [f"tar://{name}::{path}" for name in videos]
        labels += [classes.get(name.rpartition(".")[0]) for name in videos]
    if not paths:
        raise DataError(
            f"{given} holds no videos: expected members ending in {', '.join(suffixes)}; name "
            "frames of a shard in a list, as tar://clip.%06d.jpg::shard.tar, or the folder that "
            f"salt data prepare has written, which holds {PREPARED}"
        )
    return paths, labels


def read_address(
    address: str, given: str, suffixes: tuple[str, ...]
) -> tuple[list[str], Sequence[Label]]:
    """Lists the videos at an address: a list, a tar file, a video, or a folder with all below it.

    A folder may be one that `salt data prepare` has written, or hold nothing but tar files.
    Otherwise the first sub-folder names a video's class.

    Args:
        address: As fsspec spells it.
        given: Where it is named, for messages.
        suffixes: How names of videos end, in lower case.

    Raises:
        DataError: There are no videos.
    """
    name = name_of(address).lower()
    if name.endswith(LIST_SUFFIXES):
        return _read_list(address)
    if name.endswith(TAR):
        return read_shards([address], given, suffixes)
    if name.endswith(suffixes):
        return [address], [None]
    root, files = remote_files(address)
    prepared = f"{root.rstrip('/')}/{PREPARED}"
    if prepared in files:
        return _read_list(prepared)
    paths = [one for one in files if one.lower().endswith(suffixes)]
    if not paths and (shards := [one for one in files if one.endswith(TAR)]):
        return read_shards(shards, given, suffixes)
    if not paths:
        raise DataError(f"{given} holds no videos: expected files ending in {', '.join(suffixes)}")
    log_once(f"{given}: {len(paths):,} videos; left out: {len(files) - len(paths):,} other files")
    inside = [one.removeprefix(root).strip("/").split("/")[:-1] for one in paths]
    return paths, [folders[0] if folders else None for folders in inside]


def _read_list(address: str) -> tuple[list[str], Sequence[Label]]:
    """Reads a list at an address, from which its relative paths count."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / address.rpartition("/")[2]
        file.write_bytes(read_bytes(address))
        try:
            listed = read_list(file, LISTED, at=address)
        except DataError as error:
            raise DataError(str(error).replace(str(file), address)) from None
    log_once(listed.understood.replace(str(file), address))
    return listed.paths, listed.labels
