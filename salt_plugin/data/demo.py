"""The embedded default set, written once as H.264 files and read like any user's videos."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.progress import track

from salt_plugin.data.digits import DIRECTIONS, DemoSpec, render
from salt_plugin.errors import ConfigError, DataError
from salt_plugin.files import unwritable_cache, user_cache

__all__ = ["DIRECTIONS", "DemoSpec", "demo_list", "make_demo", "render", "spec_of", "write_video"]

VERSION = 1
FPS = 8


def make_demo(spec: DemoSpec, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Writes the set once and returns its folder; later calls only look it up.

    The folder holds `train/` and `test/` with the videos, and the lists `train.csv` (unlabelled),
    `train_digit.csv`, `train_direction.csv`, `test_digit.csv` and `test_direction.csv`; with
    validation clips also `val/`, `val_digit.csv` and `val_direction.csv`.

    Args:
        spec: The set.
        cache_dir: Folder to keep sets in; by default `salt_plugin` under `$XDG_CACHE_HOME`, or
            under `~/.cache`.

    Returns:
        The folder, named after a hash of the spec.

    Raises:
        CacheError: There is no such set, and none can be written.
    """
    root = Path(cache_dir) if cache_dir is not None else user_cache()
    described = asdict(spec)
    if not spec.val:
        del described["val"]  # such a set is named as it was before there was validation
    key = json.dumps([VERSION, described], sort_keys=True)
    folder = root / f"demo-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    try:
        _make(spec, root, folder)
    except OSError as error:
        raise unwritable_cache(root, error) from None
    return folder


def _make(spec: DemoSpec, root: Path, folder: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".demo-") as temporary:
        built = Path(temporary) / "demo"
        for split, count in {"train": spec.train, "val": spec.val, "test": spec.test}.items():
            if count:
                _write_split(spec, built, split, count)
        try:
            built.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(built)  # another process finished the same set first


def spec_of(values: Mapping[str, Any], key: str) -> DemoSpec:
    """Returns the set that a configuration describes.

    Args:
        values: Arguments of `DemoSpec`.
        key: Where they are given, for messages.

    Raises:
        ConfigError: A key is unknown, or a value cannot work.
    """
    try:
        return DemoSpec(**values)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from None


def demo_list(name: str, spec: DemoSpec) -> str:
    """Returns the path of a list of the set, which is made where it is missing.

    Args:
        name: Of the list, e.g. `train.csv`.
        spec: The set.

    Raises:
        DataError: It has no such list.
        CacheError: As `make_demo`.
    """
    file = make_demo(spec) / name
    if not file.is_file():
        found = ", ".join(sorted(one.name for one in file.parent.glob("*.csv")))
        wanting = "" if spec.val else "; for those of validation set val of the demo set above 0"
        raise DataError(f"demo:{name} is no list of the set: expected one of {found}{wanting}")
    return str(file)


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Writes frames (uint8 [T, H, W, 3]) as H.264 with one closed GOP and no B-frames.

    Readers that seek by keyframe are exact on such files.
    """
    options = {"preset": "ultrafast", "crf": "12", "threads": "1", "bf": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = len(frames)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_split(spec: DemoSpec, folder: Path, split: str, count: int) -> None:
    (folder / split).mkdir(parents=True)
    lists: defaultdict[str, str] = defaultdict(str)
    for index in track(range(count), f"demo set, {split}", transient=True):
        frames, digit, direction = render(spec, index, split)
        name = f"{split}/{index:06d}.mp4"
        write_video(folder / name, frames, FPS)
        lists[f"{split}_digit"] += f"{name} {digit}\n"
        lists[f"{split}_direction"] += f"{name} {direction}\n"
        lists[split] += f"{name} -1\n"
    for kind, lines in lists.items():
        if kind not in ("val", "test"):
            (folder / f"{kind}.csv").write_text(lines)
