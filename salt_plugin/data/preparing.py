"""Collections written again for training, clip by clip, in order, so that a stop loses little."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from salt_plugin.data.checking import apart
from salt_plugin.data.shard_writer import ShardWriter, member_of
from salt_plugin.data.sources import UNFINISHED, VideoList
from salt_plugin.data.stores import PREPARED
from salt_plugin.errors import ConfigError
from salt_plugin.files import LOCK, hold, sync, write_csv, write_text
from salt_plugin.video.conversion import Conversion, Converted, convert
from salt_plugin.video.places import LocalFile
from salt_plugin.video.shards import read_members

MANIFEST = "manifest.parquet"
LEFT_OUT = "left_out.csv"
# Clips that are made before those that they follow, for each worker.
_AHEAD = 4
_FOLDER = 1000  # clips in a folder


@dataclass
class Preparation:
    """A collection that is written again.

    Args:
        videos: The collection.
        out: Folder to write; of an earlier, unfinished call with the same arguments, to go on in.
        how: How each video is written.
        shard_bytes: Size from which on a shard is closed; None writes single files.
        workers: Processes at a time.
        timeout: Seconds without a packet or a frame after which a video is given up.

    Raises:
        ConfigError: The folder is in use, or holds something else.
    """

    videos: VideoList
    out: Path
    how: Conversion
    shard_bytes: int | None
    workers: int
    timeout: float

    def __post_init__(self) -> None:
        """Takes the folder, and reads how far an earlier call came."""
        self._pieces = self.out / ".pieces"
        self._journal = self.out / UNFINISHED
        held = {path.name for path in self.out.iterdir()} if self.out.is_dir() else set()
        if held - {LOCK, self._pieces.name} and not self._journal.is_file():
            raise ConfigError(f"OUT={self.out} holds something else: name an empty or a new folder")
        self._lock = hold(self.out)
        if self._lock is None:
            raise ConfigError(f"OUT={self.out} is in use by another process")
        about = {"input": self.videos.digest(), **asdict(self.how), "shards": self.shard_bytes}
        try:
            self._pieces.mkdir(exist_ok=True)
            self.clips = self._read_journal(about)
        except BaseException:
            self._lock.close()
            raise

    def run(self, done: Callable[[int], None]) -> list[dict[str, Any]]:
        """Writes what is missing, and then leaves the folder to others.

        Args:
            done: Called with the number of clips that are done, after each.

        Returns:
            What became of each video: `source`, `label`, `path` in OUT, and what `Converted` tells.
        """
        assert self._lock is not None
        with self._lock:
            self._write_clips(done)
            self._write_lists()
        return self.clips

    def _write_clips(self, done: Callable[[int], None]) -> None:
        shards = ShardWriter(self.out / "shards", self.shard_bytes, self.how.store, self.clips)
        with self._journal.open("a", encoding="utf-8") as journal:
            for number, clip in self._converted(len(self.clips)):
                done(number + 1)
                piece = self._piece(number)
                if self.shard_bytes is None:
                    if clip["reason"] is None:
                        clip["path"] = self._single(number, piece)
                    finished = [clip]
                else:
                    finished = shards.add(clip, piece)
                self._note(journal, finished)
            if self.shard_bytes is not None:
                self._note(journal, shards.close())

    def _note(self, journal: IO[str], clips: list[dict[str, Any]]) -> None:
        """Writes down clips that are in their places, and removes their pieces."""
        if not clips:
            return
        journal.writelines(json.dumps(clip) + "\n" for clip in clips)
        journal.flush()
        os.fsync(journal.fileno())
        for number in range(len(self.clips), len(self.clips) + len(clips)):
            self._piece(number).unlink(missing_ok=True)
            self._told(number).unlink(missing_ok=True)
        self.clips += clips

    def _converted(self, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields what became of the videos from one on, in order, several made at a time."""
        waiting: deque[tuple[int, Future[dict[str, Any]]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for number in range(first, len(self.videos.paths)):
                    waiting.append((number, pool.submit(self._convert, number)))
                    if len(waiting) > _AHEAD * self.workers:
                        done, future = waiting.popleft()
                        yield done, future.result()
                while waiting:
                    done, future = waiting.popleft()
                    yield done, future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _convert(self, number: int) -> dict[str, Any]:
        path, label = self.videos.paths[number], self.videos.labels[number]
        names = self.videos.classes
        told = self._told(number)
        clip = {"source": path, "label": names[label] if names and label >= 0 else label}
        if self._piece(number).is_file() and told.is_file():
            return {**clip, **json.loads(told.read_text())}
        work = partial(
            convert, path, _key(number), self._piece(number), self.how, label, dict(clip)
        )
        made = apart(work, self.timeout, lambda reason: Converted(reason=reason))
        write_text(told, json.dumps(asdict(made)))
        return {**clip, **asdict(made)}

    def _single(self, number: int, piece: Path) -> str:
        """Puts a clip in a file, or in a folder, of its own, and returns its path in OUT."""
        key = _key(number)
        folder = self.out / self.how.store / f"{number // _FOLDER:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        frames = self.how.store == "frames"
        if frames:
            shutil.rmtree(folder / key, ignore_errors=True)
            (folder / key).mkdir()
        source = LocalFile(str(piece))
        for name, start, size in read_members(str(piece), source):
            if frames:
                place = folder / key / name.removeprefix(f"{key}.")
            elif name.endswith(".mp4"):
                place = folder / name
            else:
                continue
            place.write_bytes(source.fetch(start, start + size))
        return str((folder / member_of(key, self.how.store, "/")).relative_to(self.out))

    def _piece(self, number: int) -> Path:
        return self._pieces / f"{_key(number)}.tar"

    def _told(self, number: int) -> Path:
        return self._pieces / f"{_key(number)}.json"

    def _read_journal(self, about: dict[str, Any]) -> list[dict[str, Any]]:
        if not self._journal.is_file():
            write_text(self._journal, json.dumps(about) + "\n")
            return []
        text = self._journal.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        begun = json.loads(lines[0]) if lines else {}
        if begun != about:
            differing = sorted(name for name in about if begun.get(name) != about[name])
            before, now = (
                ", ".join(f"{name}={one.get(name)}" for name in differing) for one in (begun, about)
            )
            raise ConfigError(
                f"OUT={self.out} was begun with {before}, not {now}: name another folder"
            )
        # A line that was being written when the process ended.
        write_text(self._journal, "".join(f"{line}\n" for line in lines))
        return [json.loads(line) for line in lines[1:]]

    def _write_lists(self) -> None:
        good = [clip for clip in self.clips if clip["reason"] is None]
        bad = [
            {"path": clip["source"], "reason": clip["reason"]}
            for clip in self.clips
            if clip["reason"] is not None
        ]
        write_csv(self.out / LEFT_OUT, ("path", "reason"), bad)
        _write_manifest(self.out / MANIFEST, good)
        rows = [
            {"path": clip["path"], "label": "" if clip["label"] == -1 else clip["label"]}
            for clip in good
        ]
        write_csv(self.out / PREPARED, ("path", "label"), rows)
        shutil.rmtree(self._pieces, ignore_errors=True)


def _key(number: int) -> str:
    return f"{number:08d}"


def _write_manifest(path: Path, clips: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = any(isinstance(clip["label"], str) for clip in clips)
    columns = {
        "path": pa.string(),
        "frames": pa.int64(),
        "fps": pa.float64(),
        "keyframes": pa.list_(pa.int32()),
        "bytes": pa.int64(),
        "height": pa.int32(),
        "width": pa.int32(),
        "label": pa.string() if named else pa.int64(),
        "source": pa.string(),
    }
    rows = [
        {
            **{name: clip[name] for name in columns},
            "label": None if clip["label"] == -1 else clip["label"],
            "source": clip["source"].encode(errors="backslashreplace").decode(),
        }
        for clip in clips
    ]
    unfinished = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), unfinished)
    sync(unfinished)
    os.replace(unfinished, path)
