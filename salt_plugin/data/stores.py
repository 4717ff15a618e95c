"""Videos in tar files, and at addresses that fsspec opens."""

from __future__ import annotations

from collections.abc import Sequence

from salt_plugin.data.list_file import Label
from salt_plugin.errors import DataError
from salt_plugin.video.remote import remote_files
from salt_plugin.video.shards import read_members, shard_at
from salt_plugin.video.storage import name_of

TAR = ".tar"
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
        for name, start, size in read_members(path, source):
            if name.endswith(_CLASS) and size <= _MAX_CLASS:
                text = source.fetch(start, start + size).decode(errors="replace").strip()
                label: Label = int(text) if text.isascii() and text.isdecimal() else text
                classes[name.removesuffix(_CLASS)] = label
            elif name.lower().endswith(suffixes):
                videos.append(name)
        paths += [f"tar://{name}::{path}" for name in videos]
        labels += [classes.get(name.rpartition(".")[0]) for name in videos]
    if not paths:
        raise DataError(
            f"{given} holds no videos: expected members ending in {', '.join(suffixes)}; name "
            "frames of a shard in a list, as tar://clip.%06d.jpg::shard.tar"
        )
    return paths, labels


def read_address(
    address: str, given: str, suffixes: tuple[str, ...]
) -> tuple[list[str], Sequence[Label]]:
    """Lists the videos at an address: a tar file, one video, or a folder with all below it.

    The first sub-folder names a video's class.

    Args:
        address: As fsspec spells it.
        given: Where it is named, for messages.
        suffixes: How names of videos end, in lower case.

    Raises:
        DataError: There are no videos.
    """
    name = name_of(address).lower()
    if name.endswith(TAR):
        return read_shards([address], given, suffixes)
    if name.endswith(suffixes):
        return [address], [None]
    root, files = remote_files(address)
    paths = [one for one in files if one.lower().endswith(suffixes)]
    if not paths:
        raise DataError(
            f"{given} holds no videos: expected files ending in {', '.join(suffixes)}; a list of "
            "addresses has to be a local file"
        )
    inside = [one.removeprefix(root).strip("/").split("/")[:-1] for one in paths]
    return paths, [folders[0] if folders else None for folders in inside]
