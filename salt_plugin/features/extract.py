"""Features of windows written to disk, by any number of processes, and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from salt_plugin.errors import DataError
from salt_plugin.evaluation.features import Progress, quiet
from salt_plugin.features.embedding import Extraction
from salt_plugin.features.feature_files import read_about, require_format, write_file
from salt_plugin.features.feature_parts import PartFiles, require_plan
from salt_plugin.files import hold


class Written(NamedTuple):
    """A finished extraction.

    Attributes:
        out: The file or folder.
        rows: Windows in it.
        shape: Of the features of a row.
        errors: Path and reason of each video that could not be read, or not whole.
        new: Whether it was not there before.
    """

    out: Path
    rows: int
    shape: list[int]
    errors: list[list[str]]
    new: bool = True


def extract(
    made: Extraction, out: Path, rank: int = 0, size: int = 1, progress: Progress = quiet
) -> Written | None:
    """Writes features, going on from what is there; the process that ends last joins the parts.

    Args:
        made: The features.
        out: A name ending in `.npz` or `.parquet`, beside which a folder holds the parts until
            they are joined; else the folder of the parts.
        rank: Which of the processes that share the work this is.
        size: How many these are.
        progress: Called after every batch.

    Returns:
        What is finished; None while parts of other processes are missing.

    Raises:
        ConfigError: Other features are there.
        DataError: The disk is full, or another process does this share.
    """
    require_format(out)
    is_file = out.suffix in (".npz", ".parquet") and not out.is_dir()
    if is_file and (about := read_about(out)) is not None:
        require_plan(out, about, made.plan)
        return Written(out, about["rows"], made.plan["shape"], about["errors"], new=False)
    folder = out.with_name(out.name + ".parts") if is_file else out
    parts = PartFiles(folder, made.paths, made.plan)
    own = folder / f".process-{rank}"
    lock = hold(own)
    if lock is None:
        raise DataError(f"another process writes these features to {folder}; wait for it")
    with lock:
        for batch, features in made.batches(parts.states, rank, size):
            parts.add(batch, features)
            progress("features", int(1e4 * batch.seen), int(1e4))
    shutil.rmtree(own, ignore_errors=True)
    try:
        files = parts.complete()
    except DataError:  # of a file that another process has joined and removed
        if is_file and out.exists():
            return None
        raise
    if files is None:
        return None
    if not is_file:
        return Written(out, parts.rows(files), made.plan["shape"], parts.errors(files))
    lock = hold(folder)
    if lock is None:  # another process joins them
        return None
    with lock:
        if not out.exists():
            longest = max(len(path) for path in made.paths)
            ends = {"rows": parts.rows(files), "longest": longest, "errors": parts.errors(files)}
            write_file(out, files, made.plan | ends)
        shutil.rmtree(folder, ignore_errors=True)
    about = read_about(out) or {}
    return Written(out, about["rows"], made.plan["shape"], about["errors"])
