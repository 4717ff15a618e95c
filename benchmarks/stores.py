"""CPU time of a clip from prepared collections: single files, tar shards and JPEG frames.

    python benchmarks/stores.py [--videos FOLDER_OR_CSV] [--short-side 256] [--json]

Without `--videos`, H.264 files of 256 px are made in a temporary folder (docs/benchmarks/data.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from made_videos import make_videos

from salt_plugin.data import ClipSampler, open_video, read_inputs
from salt_plugin.data.preparing import Preparation
from salt_plugin.video.conversion import Conversion

STORES = {
    "videos": ("videos", None),
    "videos in shards": ("videos", 10**7),
    "frames": ("frames", None),
    "frames in shards": ("frames", 10**7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", help="default: files that are made for it")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "source").mkdir()
        videos = read_inputs(given.videos or make_videos(Path(folder) / "source"))
        found = {"as given, pyav": _milliseconds(videos.paths, given.clips)}
        lists = {}
        for name, (store, shards) in STORES.items():
            out = Path(folder) / f"{store}-{shards}"
            how = Conversion(store, given.short_side, None)
            Preparation(videos, out, how, shards, 1, 600).run(lambda _: None)
            lists[name] = read_inputs(str(out)).paths
        found["prepared, decord"] = _milliseconds(lists["videos"], given.clips, _decord)
        for name, paths in lists.items():
            found[name] = _milliseconds(paths, given.clips)
        size = {name: _bytes(Path(folder) / f"{s}-{n}") for name, (s, n) in STORES.items()}
    for name, milliseconds in found.items():
        print(f"{name:<20} {milliseconds:6.1f} ms a clip {size.get(name, 0) / 1e6:8.1f} MB")
    if given.json:
        print(json.dumps(found))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _decord(path: str, sampler: ClipSampler, rng: np.random.Generator) -> Any:
    import decord

    video = decord.VideoReader(path, num_threads=1)
    return video.get_batch(sampler.indices(np.arange(len(video)) / 25, rng)).asnumpy()


def _ours(path: str, sampler: ClipSampler, rng: np.random.Generator) -> Any:
    video = open_video(path)
    return video.frames(sampler.indices(video.times, rng))


def _milliseconds(paths: list[str], clips: int, read: Any = _ours) -> float:
    """Returns the median CPU time of a clip of 16 frames, every fourth, each opening its file."""
    sampler, rng = ClipSampler(16, step=4), np.random.default_rng(0)
    work = [partial(read, paths[number % len(paths)], sampler, rng) for number in range(clips)]
    for first in work[: len(paths)]:
        first()  # facts are found once in a process
    spent = []
    for clip in work:
        began = time.process_time()
        clip()
        spent.append(time.process_time() - began)
    return 1000 * statistics.median(spent)


if __name__ == "__main__":
    main()
