"""Features on disk, in order of the videos, so that an interrupted extraction goes on.

Tokens are float16: it holds every bfloat16 value of the size of a normalised token exactly, and
has eight times finer steps than bfloat16 where an encoder computes in float32; numpy maps it from
disk. Means over tokens are float32, for the protocols that use nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from salt_plugin.errors import CacheError, DataError
from salt_plugin.evaluation.stored import StoredFeatures, TokenFeatures
from salt_plugin.files import read_json, require_regular, user_cache, write_text

FORMAT = 1
TOKEN_TYPE = np.float16
META_FILE, ROWS_FILE, LOCK_FILE = "store.json", "rows.json", ".lock"
TOKENS_FILE, MEANS_FILE = "tokens.npy", "means.npy"
SAVE_SECONDS = 10.0


def cache_root(given: str | None) -> Path:
    """Returns where stores are kept: `given`, or `salt_plugin/features` in the user's cache.

    Raises:
        CacheError: Nothing is given, and the user's cache cannot be used.
    """
    if given:
        return Path(os.path.expanduser(given))
    try:
        return user_cache() / "features"
    except CacheError as error:
        raise CacheError(f"{error}, or give --cache DIR") from None


def files_digest(paths: list[str]) -> str:
    """Returns a hash of a list of files: their paths, sizes and times of change.

    Raises:
        DataError: A file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            raise DataError(f"cannot read video {path}: {error.strerror}") from None
        row = f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n"
        digest.update(row.encode(errors="surrogateescape"))
    return digest.hexdigest()


class FeatureStore:
    """One folder with the features of one list of videos by one encoder.

    Args:
        root: Folder of all stores.
        key: Everything that the features depend on, as JSON; the folder is named after its hash.
        shape: (n, V, N, D).
        tokens: Whether to keep tokens beside their means.

    Raises:
        DataError: The folder holds features of another key, another process writes to it, or the
            disk has too little space.
    """

    def __init__(
        self, root: Path, key: dict[str, Any], shape: tuple[int, int, int, int], tokens: bool
    ) -> None:
        self.key = {**key, "shape": list(shape), "tokens": tokens, "format": FORMAT}
        text = json.dumps(self.key, sort_keys=True)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.shape = shape
        self._check_root(root)
        if (self.folder / META_FILE).is_file():
            check_store(self.folder, self.key)
        self._files: dict[str, tuple[type, tuple[int, ...]]] = {
            MEANS_FILE: (np.float32, (shape[0], shape[1], shape[3]))
        }
        if tokens:
            self._files[TOKENS_FILE] = (TOKEN_TYPE, shape)

    @property
    def rows_done(self) -> int:
        """Videos whose features are on disk.

        Raises:
            DataError: The file that tells is damaged.
        """
        file = self.folder / ROWS_FILE
        if not file.is_file():
            return 0
        try:
            rows = read_json(file)
        except (OSError, ValueError) as error:
            raise self._damaged(file, str(error)) from None
        if type(rows) is not int or not 0 <= rows <= self.shape[0]:
            raise self._damaged(file, f"{str(rows)[:80]} rows of {self.shape[0]}")
        return rows

    def read(self) -> StoredFeatures:
        """Returns the features of a finished store.

        Raises:
            DataError: A file of it is damaged, or of other contents than the key says.
        """
        means = np.array(self._mapped(MEANS_FILE, "r"))
        tokens = None
        if TOKENS_FILE in self._files:
            tokens = TokenFeatures(self._mapped(TOKENS_FILE, "r"))
        return StoredFeatures(torch.from_numpy(means), tokens)

    def _mapped(self, name: str, mode: Literal["r", "r+"]) -> np.memmap:
        """Maps a file, once its header is that of this store; a larger one would make it grow."""
        path, (kind, shape) = self.folder / name, self._files[name]
        try:
            size = require_regular(path).st_size
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                found, fortran, dtype = read(file) if version == (1, 0) else ((), False, None)
                expected = file.tell() + int(np.prod(shape)) * np.dtype(kind).itemsize
        except (OSError, ValueError) as error:
            raise self._damaged(path, str(error).split("\n")[0]) from None
        if (found, fortran, dtype, size) != (shape, False, np.dtype(kind), expected):
            raise self._damaged(
                path,
                f"an array {str(found)[:80]} of {dtype} in {size} bytes: expected {shape} of "
                f"{np.dtype(kind)} in {expected}",
            )
        return np.lib.format.open_memmap(path, mode=mode)

    def _damaged(self, file: Path, reason: str) -> DataError:
        return DataError(
            f"{file} is no features of this package, or damaged ({reason}); remove {self.folder}"
        )

    @contextmanager
    def writing(self) -> Iterator[StoreWriter]:
        """Opens the store, to go on after `rows_done`; what was written stays on any exit."""
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(
                    f"another process writes features to {self.folder}; wait for it"
                ) from None
            if not (self.folder / META_FILE).is_file():
                self._make()
            maps = {name: self._mapped(name, "r+") for name in self._files}
            writer = StoreWriter(self.folder, maps, self.rows_done)
            try:
                yield writer
            finally:
                writer.save()

    def _lock_file(self) -> IO[str]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / LOCK_FILE).open("w")
        except OSError as error:
            raise DataError(
                f"features cannot be written to {self.folder} ({error.strerror}): give "
                "--cache DIR, or set XDG_CACHE_HOME to a folder that can be"
            ) from None

    def _make(self) -> None:
        """Lays out the files, sparse where the disk can; the key last, which makes it a store."""
        sizes = [np.prod(shape) * np.dtype(kind).itemsize for kind, shape in self._files.values()]
        free = shutil.disk_usage(self.folder).free
        if sum(sizes) > free:
            raise DataError(
                f"features of {self.shape[0]} videos x {self.shape[1]} views x {self.shape[2]} "
                f"tokens x {self.shape[3]} take {sum(sizes) / 1e9:.1f} GB and {self.folder} has "
                f"{free / 1e9:.1f} GB free: give --cache DIR on a larger disk, fewer views, or "
                "--protocol linear or knn, which keep no tokens"
            )
        for name, (kind, shape) in self._files.items():
            np.lib.format.open_memmap(self.folder / name, mode="w+", dtype=kind, shape=shape)
        write_text(self.folder / META_FILE, json.dumps(self.key, indent=2, sort_keys=True) + "\n")

    def _check_root(self, root: Path) -> None:
        if (root / META_FILE).is_file():
            check_store(root, self.key)
            raise DataError(f"--cache {root} is one store of features: give the folder it lies in")


class StoreWriter:
    """Writes rows in order, and now and then how many there are."""

    def __init__(self, folder: Path, maps: dict[str, np.memmap], rows: int) -> None:
        self.rows = rows
        self._folder = folder
        self._maps = maps
        self._saved = time.monotonic()

    def add(self, tokens_bvnd: Tensor, pooled_bvd: Tensor) -> None:
        """Writes the features of the next videos: tokens and what is pooled of them, float32.

        Raises:
            DataError: A value is not finite, or too large for float16.
        """
        rows = slice(self.rows, self.rows + len(tokens_bvnd))
        self._maps[MEANS_FILE][rows] = pooled_bvd.cpu().numpy()
        if TOKENS_FILE in self._maps:
            half = tokens_bvnd.half()
            if not half.isfinite().all():
                raise DataError(
                    "the encoder gives tokens that are not finite in float16: expected values "
                    "below 65504, as a last LayerNorm gives; check the encoder's weights"
                )
            self._maps[TOKENS_FILE][rows] = half.cpu().numpy()
        self.rows = rows.stop
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Brings what was added to the disk, then the number of its rows."""
        for stored in self._maps.values():
            stored.flush()
        write_text(self._folder / ROWS_FILE, json.dumps(self.rows))
        self._saved = time.monotonic()


def check_store(folder: Path, key: dict[str, Any]) -> None:
    """Checks that a folder holds the features of a key.

    Raises:
        DataError: They are of another encoder, list, transform or choice of views.
    """
    try:
        stored = read_json(folder / META_FILE)
        differing = [
            name for name in sorted(stored.keys() | key) if stored.get(name) != key.get(name)
        ]
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(f"{folder / META_FILE} is damaged ({error}); remove {folder}") from None
    if differing:
        shown = "; ".join(
            f"{name} is {stored.get(name)} and not {key.get(name)}" for name in differing
        )
        raise DataError(
            f"{folder} holds other features than these: {shown}. Remove it, or give another --cache"
        )
