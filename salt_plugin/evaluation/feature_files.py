"""Features of windows on disk: parts as they come, then one file or the folder of parts.

A part is an `.npz` file of `features` [r, ...], `path`, `start` and `end` (seconds), and `about`,
JSON that says how far it is. A finished file has the same columns, a row a window.
"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salt_plugin.errors import ConfigError, DataError
from salt_plugin.evaluation.window_data import GROUP, ClipBatch, PartState, Place, part_name
from salt_plugin.files import read_json, sync, write_json

PLAN_FILE = "features.json"
COLUMNS = ("features", "path", "start", "end")
SAVE_SECONDS = 10.0
_ABOUT = "about"
_ROW_GROUP = 2**24  # bytes

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
                write_json(folder / PLAN_FILE, plan)
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
        return sum(len(starts_w) for starts_w in _column(files, "start", np.dtype("<f8")))

    def _read(self, file: Path) -> Arrays:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in COLUMNS}

    def _about(self, file: Path) -> dict[str, Any]:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                about: dict[str, Any] = json.loads(str(arrays[_ABOUT]))
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


def read_about(out: Path) -> dict[str, Any] | None:
    """Returns what a finished file says of itself; None where there is no file.

    Raises:
        ConfigError: The file is something else.
    """
    if not out.exists():
        return None
    try:
        if out.suffix == ".npz":
            with np.load(out, allow_pickle=False) as arrays:
                text = str(arrays[_ABOUT])
        else:
            text = _parquet().read_schema(out).metadata[_ABOUT.encode()]
        return dict(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        raise ConfigError(f"{out} is no file of salt features; give another --out") from None


def write_file(out: Path, files: Sequence[Path], about: Mapping[str, Any]) -> None:
    """Joins parts in one file, a part at a time in memory; the file appears in one piece.

    Args:
        out: Where to, `.npz` or `.parquet`.
        files: The parts, in their order.
        about: Goes into the file as JSON; `shape` and `dtype` are those of a row's features, `rows`
            is their number, `longest` the length of the longest path.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    (_write_npz if out.suffix == ".npz" else _write_parquet)(unfinished, files, about)
    sync(unfinished)
    os.replace(unfinished, out)


def _column(files: Sequence[Path], name: str, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays[name].astype(dtype, copy=False)


def _dtypes(about: Mapping[str, Any]) -> dict[str, np.dtype[Any]]:
    kinds = {"features": about["dtype"], "path": f"<U{about['longest']}", "start": "<f8"}
    return {name: np.dtype(kinds.get(name, "<f8")) for name in COLUMNS}


def _write_npz(place: Path, files: Sequence[Path], about: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(place, "w") as archive:
        for name, dtype in _dtypes(about).items():
            info = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: equal rows make equal files
            info.compress_type = zipfile.ZIP_DEFLATED if name == "path" else zipfile.ZIP_STORED
            shape = (about["rows"], *(about["shape"] if name == "features" else ()))
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for array in _column(files, name, dtype):
                    member.write(array.tobytes())
        text = io.BytesIO()
        np.save(text, np.array(json.dumps(about)))
        archive.writestr(zipfile.ZipInfo(f"{_ABOUT}.npy"), text.getvalue())


def _write_parquet(place: Path, files: Sequence[Path], about: Mapping[str, Any]) -> None:
    import pyarrow as pa

    width = int(np.prod(about["shape"], dtype=int))
    values = pa.from_numpy_dtype(np.dtype(about["dtype"]))
    types = {"features": pa.list_(values, width), "path": pa.string()}
    fields = [(name, types.get(name, pa.float64())) for name in COLUMNS]
    schema = pa.schema(fields, metadata={_ABOUT: json.dumps(about)})
    columns = zip(
        *(_column(files, name, kind) for name, kind in _dtypes(about).items()), strict=True
    )
    with _parquet().ParquetWriter(place, schema) as writer:
        waiting, size = [], 0
        for features, paths, starts, ends in columns:
            flat = pa.array(features.reshape(-1))
            # A name that is not UTF-8 is written as the terminal shows it.
            names = [path.encode(errors="backslashreplace").decode() for path in paths.tolist()]
            arrays = [pa.FixedSizeListArray.from_arrays(flat, width), names, starts, ends]
            waiting.append(pa.table(arrays, schema=schema))
            size += features.nbytes
            if size >= _ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def require_format(out: Path) -> None:
    """Checks that a file can be written in the format that its name asks for.

    Raises:
        ConfigError: It cannot: the format is another, or pyarrow is missing.
    """
    if out.suffix not in ("", ".npz", ".parquet") and not out.is_dir():
        raise ConfigError(f"--out {out}: expected a name ending in .npz or .parquet, or a folder")
    if out.suffix == ".parquet":
        _parquet()


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "a .parquet file needs pyarrow: pip install 'salt-plugin[parquet]', or give --out a "
            "name ending in .npz"
        ) from None
    return pyarrow.parquet


def _state(about: Mapping[str, Any]) -> PartState:
    after = about["after"]
    return PartState(int(about["done"]), None if after is None else Place(*map(int, after)))
