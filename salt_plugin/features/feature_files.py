"""Parts of features joined in one file, `.npz` or `.parquet`, with the same columns."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salt_plugin.errors import ConfigError
from salt_plugin.features.feature_parts import ABOUT, COLUMNS, column
from salt_plugin.files import sync

_ROW_GROUP = 2**24  # bytes


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
                text = str(arrays[ABOUT])
        else:
            text = _parquet().read_schema(out).metadata[ABOUT.encode()]
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
                for array in column(files, name, dtype):
                    member.write(array.tobytes())
        text = io.BytesIO()
        np.save(text, np.array(json.dumps(about)))
        archive.writestr(zipfile.ZipInfo(f"{ABOUT}.npy"), text.getvalue())


def _write_parquet(place: Path, files: Sequence[Path], about: Mapping[str, Any]) -> None:
    import pyarrow as pa

    width = int(np.prod(about["shape"], dtype=int))
    values = pa.from_numpy_dtype(np.dtype(about["dtype"]))
    types = {"features": pa.list_(values, width), "path": pa.string()}
    fields = [(name, types.get(name, pa.float64())) for name in COLUMNS]
    schema = pa.schema(fields, metadata={ABOUT: json.dumps(about)})
    columns = zip(
        *(column(files, name, kind) for name, kind in _dtypes(about).items()), strict=True
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
