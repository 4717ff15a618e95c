"""Tar files of clips, with an index beside each."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np

from salt_plugin.files import sync
from salt_plugin.video.places import LocalFile
from salt_plugin.video.shards import INDEX_SUFFIX, make_index, read_members

_END_OF_TAR = bytes(1024)


class ShardWriter:
    """Tar files that pieces are appended to, in order.

    Args:
        folder: Where they lie.
        limit: Bytes from which on a shard is closed.
        store: `videos` or `frames`.
        clips: Those in finished shards.
    """

    def __init__(
        self, folder: Path, limit: int | None, store: str, clips: list[dict[str, Any]]
    ) -> None:
        self._folder, self._limit, self._store = folder, limit or 0, store
        self._clips: list[dict[str, Any]] = []
        self._number = 1 + max((clip.get("shard", -1) for clip in clips), default=-1)
        self._file: IO[bytes] | None = None

    def add(self, clip: dict[str, Any], piece: Path) -> list[dict[str, Any]]:
        """Appends a piece; returns the clips of a shard that is full with it."""
        clip["shard"] = self._number
        self._clips.append(clip)
        if clip["reason"] is None:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = self._unfinished().open("wb")
            name = member_of(piece.stem, self._store, ".")
            clip["path"] = f"tar://{name}::shards/{self._name()}"
            with piece.open("rb") as content:
                shutil.copyfileobj(content, self._file)
            if self._file.tell() >= self._limit:
                return self.close()
        return []

    def close(self) -> list[dict[str, Any]]:
        """Closes the open shard, writes its index, and returns its clips."""
        if self._file is not None:
            self._file.write(_END_OF_TAR)
            self._file.close()
            self._file = None
            sync(self._unfinished())
            source = LocalFile(str(self._unfinished()))
            members = list(read_members(self._name(), source))
            index = io.BytesIO()
            np.save(index, make_index(source.state.size, members))
            (self._folder / f"{self._name()}{INDEX_SUFFIX}").write_bytes(index.getvalue())
            self._unfinished().rename(self._folder / self._name())
            self._number += 1
        clips, self._clips = self._clips, []
        return clips

    def _name(self) -> str:
        return f"{self._number:05d}.tar"

    def _unfinished(self) -> Path:
        return self._folder / f".{self._name()}.tmp"


def member_of(key: str, store: str, between: str) -> str:
    """Returns the name of a clip: of its video, or what stands for its frames."""
    return f"{key}{between}%06d.jpg" if store == "frames" else f"{key}.mp4"
