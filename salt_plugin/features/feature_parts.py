"""Parts of the features of windows, as they come: what a killed run goes on from.

A part is an `.npz` file of `features` [r, ...], `path`, `start` and `end` (seconds), and `about`,
JSON that says how far it is.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salt_plugin.errors import ConfigError, DataError
from salt_plugin.features.window_data import GROUP, ClipBatch, PartState, Place, part_name
from salt_plugin.files import read_json, sync, write_json

PLAN_FILE = "features.json"
COLUMNS = ("features", "path", "start", "end")
ABOUT = "about"
SAVE_SECONDS = 10.0

Arrays = dict[str, np.ndarray]


class PartFiles:
    """The parts of a list of videos, in a folder.

    Args:
        folder: Of the parts; made where it is missing.
        paths: The videos.
        plan: All that the features depend on, as JSON.

    Attributes:
        states: The parts that are there, by name.

    Raises:
        ConfigError: The folder cannot be written to, or holds features of another plan.
        DataError: A part is damaged.
    """

    def __init__(self, folder: Path, paths: Sequence[str], plan: dict[str, Any]) -> None:
        self.folder, self.paths = folder, paths
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / PLAN_FILE).exists():
                own = folder / f".{PLAN_FILE}.{os.getpid()}"  # others may write theirs now
                write_json(own, plan)
                os.replace(own, folder / PLAN_FILE)
            require_plan(folder, read_json(folder / PLAN_FILE), plan)
        except (OSError, ValueError) as error:
            raise ConfigError(f"features cannot be written to {folder} ({error})") from None
        self._begun: dict[str, Arrays] = {}
        self._errors: dict[str, dict[str, str]] = {}
        self._saved: dict[str, float] = {}
        self.states = self.read_states()

    def read_states(self) -> dict[str, PartState]:
        """Returns how far each part is that is in the folder."""
        return {file.stem: _state(self._about(file)) for file in self.folder.glob("*-*.npz")}

    def add(self, batch: ClipBatch, features: np.ndarray) -> None:
        """Takes the features of a batch; writes its part once complete, and now and then before.

        Args:
            batch: The windows.
            features: Of these, [b, ...].
        """
        name = batch.part
        file = self.folder / f"{name}.npz"
        if name not in self._begun:
            self._errors[name] = {}
            if name in self.states:  # of a run that was killed
                self._begun[name] = self._read(file)
                self._errors[name] = dict(self._about(file)["errors"])
        new: Arrays = {
            "features": features,
            "path": np.array([self.paths[row.video] for row in batch.rows], dtype=str),
            "start": np.array([row.start for row in batch.rows]),
            "end": np.array([row.end for row in batch.rows]),
        }
        had = self._begun.get(name)
        arrays = {key: np.concatenate([had[key], new[key]]) for key in COLUMNS} if had else new
        self._begun[name] = arrays
        self._errors[name] |= dict(batch.errors)
        due = time.monotonic() - self._saved.get(name, -SAVE_SECONDS) >= SAVE_SECONDS
        if batch.state.after is None and not due:
            return
        self._saved[name] = time.monotonic()
        about = {**batch.state._asdict(), "errors": list(self._errors[name].items())}
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        with unfinished.open("wb") as opened:
            np.savez(opened, allow_pickle=False, **arrays, about=np.array(json.dumps(about)))
        sync(unfinished)
        os.replace(unfinished, file)
        self.states[name] = batch.state
        if batch.state.after is not None:
            for kept in (self._begun, self._errors, self._saved):
                kept.pop(name)

    def complete(self) -> list[Path] | None:
        """Returns the parts in the order of their windows, None as long as one is not complete."""
        states = self.read_states()
        files = []
        for group in range(-(-len(self.paths) // GROUP)):
            place, block = Place(group * GROUP, 0), 0
            while place.video < min((group + 1) * GROUP, len(self.paths)):
                after = states.get(part_name(group, block), PartState(0, None)).after
                if after is None:
                    return None
                files.append(self.folder / f"{part_name(group, block)}.npz")
                place, block = after, block + 1
        return files

    def errors(self, files: Sequence[Path]) -> list[list[str]]:
        """Returns path and reason of each video that could not be read, or not whole."""
        return [error for file in files for error in self._about(file)["errors"]]

    def rows(self, files: Sequence[Path]) -> int:
        """Returns the number of windows in parts."""
        return sum(len(starts_w) for starts_w in column(files, "start", np.dtype("<f8")))

    def _read(self, file: Path) -> Arrays:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in COLUMNS}

    def _about(self, file: Path) -> dict[str, Any]:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                about: dict[str, Any] = json.loads(str(arrays[ABOUT]))
            _state(about), dict(about["errors"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{file} is no part of features, or damaged ({error}); remove it: the same command "
                "makes it again"
            ) from None
        return about


def require_plan(place: Path, found: Any, plan: Mapping[str, Any]) -> None:
    """Checks that features that are there were made as those that are asked for.

    Raises:
        ConfigError: They differ.
    """
    found = found if isinstance(found, dict) else {}
    for key, value in plan.items():
        if key != "encoder" and found.get(key) != value:  # which may go by several names
            raise ConfigError(
                f"{place} holds other features: {key} was {str(found.get(key))[:99]}, and is now "
                f"{str(value)[:99]}; remove it, or give another --out"
            )


def column(files: Sequence[Path], name: str, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """Yields a column of parts, a part at a time."""
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays[name].astype(dtype, copy=False)


def _state(about: Mapping[str, Any]) -> PartState:
    after = about["after"]
    return PartState(int(about["done"]), None if after is None else Place(*map(int, after)))
