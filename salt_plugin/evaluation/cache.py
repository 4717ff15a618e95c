"""Features on disk, in the order of the videos, so that an interrupted extraction goes on.

Tokens are float16, the features of clips float32, as plain numbers without a header. float16 holds
every bfloat16 value of the size of a normalised token exactly, with eight times finer steps.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from salt_plugin.errors import CacheError, DataError
from salt_plugin.files import hold, read_json, require_regular, sync, user_cache, write_json
from salt_plugin.video.storage import state_of

FORMAT = 2
STORE_FILE = "store.json"
MEANS, TOKENS = "means.f32", "tokens.f16"
SAVE_SECONDS = 10.0


class StoredFeatures(NamedTuple):
    """Features of a list of videos.

    Attributes:
        means: What is kept of the tokens, as `keep.kept` gives it, float32 [n, V, K * D].
        tokens: float16 [n, V, N, D], which stay on disk until they are indexed; None where only
            means are stored.
    """

    means: Tensor
    tokens: Tensor | None


def cache_root(given: str | None) -> Path:
    """Returns the folder of all stores: `given`, or `salt_plugin/features` in the user's cache.

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
        VideoReadError: A file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        found = state_of(path)
        row = f"{path}\0{found.size}\0{found.changed}\n"
        digest.update(row.encode(errors="surrogateescape"))
    return digest.hexdigest()


class FeatureStore:
    """The features of one list of videos by one encoder, in a folder named after their key.

    Args:
        root: Folder of all stores.
        key: Everything that the features depend on, as JSON.
        shape: (n, V, N, D).
        tokens: Whether to keep tokens beside their means.
        width: Of the means; None: D.
    """

    def __init__(
        self,
        root: Path,
        key: dict[str, Any],
        shape: tuple[int, int, int, int],
        tokens: bool,
        width: int | None = None,
    ) -> None:
        self.key = {**key, "shape": list(shape), "tokens": tokens, "format": FORMAT}
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        self.folder = root / digest[:16]
        self.shape = shape
        self._arrays: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            MEANS: (torch.float32, (*shape[:2], width or shape[3]))
        }
        if tokens:
            self._arrays[TOKENS] = torch.float16, shape

    @property
    def rows_done(self) -> int:
        """Number of videos whose features are on disk.

        Raises:
            DataError: A file of the store is damaged.
        """
        file = self.folder / STORE_FILE
        if not file.is_file():
            return 0
        try:
            rows = read_json(file)["rows"]
            if rows not in range(self.shape[0] + 1):
                raise ValueError(f"{str(rows)[:80]} of {self.shape[0]} rows are done")
            for name, (dtype, shape) in self._arrays.items():
                file = self.folder / name
                size, expected = require_regular(file).st_size, dtype.itemsize * math.prod(shape)
                if size != expected:
                    raise ValueError(f"it has {size} bytes: expected {expected}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} is no features of this package, or damaged ({error}); remove {self.folder}"
            ) from None
        return int(rows)

    def read(self) -> StoredFeatures:
        """Returns the features of a finished store."""
        maps = self._maps(shared=False)
        return StoredFeatures(maps[MEANS], maps.get(TOKENS))

    def extend(
        self,
        batches_from: Callable[[int], Iterable[StoredFeatures]],
        progress: Callable[[int], None],
    ) -> None:
        """Writes the missing features; those written so far stay when an error ends it.

        Args:
            batches_from: Returns features of the videos from a row on, batch by batch.
            progress: Called after each batch with the number of videos done.

        Raises:
            DataError: Another process writes to the folder, it cannot be written to, or the disk
                has too little space.
        """
        try:
            lock = hold(self.folder)
        except OSError as error:
            raise DataError(
                f"features cannot be written to {self.folder} ({error.strerror}): give "
                "--cache DIR, or set XDG_CACHE_HOME to a folder that can be"
            ) from None
        if lock is None:
            raise DataError(f"another process writes features to {self.folder}; wait for it")
        with lock:
            rows, saved = self.rows_done, time.monotonic()
            if not rows:
                self._require_space()
            maps = self._maps(shared=True)
            try:
                for batch in batches_from(rows):
                    part = slice(rows, rows + len(batch.means))
                    maps[MEANS][part] = batch.means
                    if batch.tokens is not None:
                        maps[TOKENS][part] = batch.tokens
                    rows = part.stop
                    progress(rows)
                    if time.monotonic() - saved > SAVE_SECONDS:
                        self._save(rows)
                        saved = time.monotonic()
            finally:
                self._save(rows)

    def _save(self, rows: int) -> None:
        """Brings features to the disk, and only then their number."""
        for name in self._arrays:
            sync(self.folder / name)
        write_json(self.folder / STORE_FILE, {**self.key, "rows": rows})

    def _maps(self, shared: bool) -> dict[str, Tensor]:
        """Maps the files; shared, writes go to the files, which are made where they are missing."""
        return {
            name: torch.from_file(
                str(self.folder / name), shared, math.prod(shape), dtype=dtype
            ).view(shape)
            for name, (dtype, shape) in self._arrays.items()
        }

    def _require_space(self) -> None:
        size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in self._arrays.values())
        free = shutil.disk_usage(self.folder).free
        if size > free:  # later, a write to the map would end the process by SIGBUS
            raise DataError(
                f"features of {self.shape[0]} videos x {self.shape[1]} views x {self.shape[2]} "
                f"tokens x {self.shape[3]} take {size / 1e9:.1f} GB and {self.folder} has "
                f"{free / 1e9:.1f} GB free: give --cache DIR on a larger disk, fewer views, or "
                "--protocol linear or knn, which keep no tokens"
            )
