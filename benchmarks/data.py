"""What clips cost by how they are stored, beside plain rivals, and the cores that a GPU needs.

    python benchmarks/data.py [--sources 256 1080] [--videos FOLDER_OR_CSV] [--workers 1 2]
                              [--rounds 2] [--gpu-clips-per-second 100 200 400] [--json]

Without `--videos`, H.264 files are made in a temporary folder. They are read as given, and as
`salt data prepare` writes them: single files, tar shards and JPEG frames. Readers take turns. A
table is printed as soon as it is full (docs/benchmarks/data.md).
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from data_readers import SAMPLER, Read, missing, ours, with_decord, with_torchcodec, with_webdataset
from made_videos import make_videos
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from salt_plugin.batch import MaskCollator
from salt_plugin.data import StepBatchSampler, VideoDataset, VideoList, read_inputs
from salt_plugin.data.preparing import Preparation
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.shapes import EncoderShape
from salt_plugin.transforms import SALTTransform
from salt_plugin.video.conversion import Conversion

# Height and width of frames, number of files, and seconds of each; 64 only shows that it runs.
SOURCES = {"256": ((256, 256), 8, 10), "1080": ((1080, 1920), 4, 4), "64": ((64, 64), 5, 2)}
SIZE, CLIPS = 224, 4  # of a batch
TICK = os.sysconf("SC_CLK_TCK")


class Way(NamedTuple):
    """A reader of a store: what it reads, how, and the bytes of the store."""

    name: str
    paths: list[str]
    read: Read
    bytes: int


class Turn(NamedTuple):
    """A turn of a loader: clips a second, CPU seconds of its workers a clip, and MiB of each."""

    rate: float
    cpu: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=["256", "1080"])
    parser.add_argument("--videos", help="in place of sources that are made")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2, help="turns of each reader")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn")
    parser.add_argument("--gpu-clips-per-second", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    given = parser.parse_args()
    lacks = {name: why for name in ("decord", "torchcodec", "webdataset") if (why := missing(name))}
    for why in lacks.values():
        print(f"left out: {why}", flush=True)
    results = {}
    for source in ["videos"] if given.videos else given.sources:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            ways = _ways(Path(folder), source, given.videos, {*lacks})
            seconds = time.monotonic() - began
            print(f"\n## {source}: made and prepared in {seconds:.0f} s\n", flush=True)
            clips = _clips(ways, given)
            results[source] = {"clips": clips, "loaders": _loaders(ways, given)}
    if given.json:
        print(json.dumps(results))


def _ways(folder: Path, source: str, videos: str | None, lacks: set[str]) -> list[Way]:
    """Makes a source and all stores of it."""
    (folder / "source").mkdir()
    sources = videos or make_videos(folder / "source", *SOURCES[source])
    as_given = read_inputs(sources)
    stores: dict[str, tuple[list[str], int]] = {}
    for store in ("videos", "frames"):
        for shards in (False, True):
            out = folder / f"{store}-{shards}"
            # So many that each worker of a reader of whole shards has some.
            limit = stores[store][1] // 5 if shards else None
            how = Conversion(store, 256, None)
            Preparation(as_given, out, how, limit, 2, 600).run(lambda _: None)
            size = sum(path.stat().st_size for path in out.rglob("*.*") if path.suffix != ".jsonl")
            stores[store + " in shards" * shards] = read_inputs(str(out)).paths, size

    def shards_of(store: str) -> tuple[list[str], int]:
        paths, size = stores[f"{store} in shards"]
        return list(dict.fromkeys(path.partition("::")[2] for path in paths)), size

    given = as_given.paths, sum(map(os.path.getsize, as_given.paths))
    rivals: tuple[tuple[str, tuple[list[str], int], Read], ...] = (
        ("as given, decord", given, with_decord),
        ("as given, torchcodec", given, with_torchcodec),
        ("prepared videos, decord", stores["videos"], with_decord),
        ("prepared videos, torchcodec", stores["videos"], with_torchcodec),
        ("videos in shards, webdataset and decord", shards_of("videos"), with_webdataset),
        ("frames in shards, webdataset and Pillow", shards_of("frames"), with_webdataset),
    )
    own = [Way("as given", given[0], ours, given[1])]
    own += [Way(f"prepared {name}", paths, ours, size) for name, (paths, size) in stores.items()]
    there = [one for one in rivals if not any(name in one[0] for name in lacks)]
    return own + [Way(name, paths, read, size) for name, (paths, size), read in there]


def _clips(ways: list[Way], given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Prints what a clip costs without transform, each opening its file anew."""
    spent: dict[str, list[list[tuple[float, float]]]] = defaultdict(lambda: [[], []])
    for number in range(given.rounds):
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            found_of = pool.submit(_visits, ways, given.seconds * len(ways), number).result()
        for name, visits in found_of.items():
            for all_of, some in zip(spent[name], visits, strict=True):
                all_of += some
    found = {}
    for name, visits in spent.items():
        (first, _), (again, wall) = (np.median(one, axis=0).tolist() for one in visits)
        found[name] = {"first": 1000 * first, "again": 1000 * again, "wall": 1000 * wall}
    decord = found.get("prepared videos, decord")
    print("| | first visit, ms of CPU | again | again, wall | of decord's first | again | MB |")
    print("|---|---|---|---|---|---|---|")
    for name, _, _, size in ways:
        row, cells = found[name], [f"{one:.1f}" for one in found[name].values()]
        cells += [f"{row[at] / decord[at]:.2f}" if decord else "" for at in ("first", "again")]
        print("|", " | ".join([name, *cells, f"{size / 1e6:.1f}"]), "|", flush=True)
    print(flush=True)
    return found


def _visits(
    ways: list[Way], seconds: float, seed: int
) -> dict[str, list[list[tuple[float, float]]]]:
    """Returns CPU and wall seconds of clips of each way: the first of each file, and later ones.

    Ways take turns clip by clip, and draw the same frames of the same files.
    """
    torch.set_num_threads(1)
    clips = {way.name: way.read(way.paths, np.random.default_rng(seed)) for way in ways}
    spent: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    sweeps, end = max(len(way.paths) for way in ways) + 2, time.monotonic() + seconds
    while sweeps > 0 or time.monotonic() < end:
        sweeps -= 1
        for name, clips_of in clips.items():
            began = time.process_time(), time.perf_counter()
            assert len(next(clips_of)) == SAMPLER.frames
            spent[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    firsts = {way.name: len(way.paths) for way in ways}
    return {name: [of[: firsts[name]], of[firsts[name] :]] for name, of in spent.items()}


def _loaders(ways: list[Way], given: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Prints what loaders give, transform included, and the cores that a GPU needs of them."""
    turns: dict[tuple[str, int], list[Turn]] = defaultdict(list)
    for _ in range(given.rounds):
        for workers in given.workers:
            for way in ways:
                turns[way.name, workers].append(_turn(way, workers, given.seconds))
    print("|", " | ".join(_heads(given)), "|")
    print("|---" * len(_heads(given)), "|", sep="")
    found = {}
    for way in ways:
        rates = [
            statistics.median(turn.rate for turn in turns[way.name, workers])
            for workers in given.workers
        ]
        every = [turn for workers in given.workers for turn in turns[way.name, workers]]
        cpu, memory = (float(np.median([turn[at] for turn in every])) for at in (1, 2))
        cores = [wanted * cpu for wanted in given.gpu_clips_per_second]
        found[way.name] = {"rates": rates, "cpu": [cpu], "memory": [memory], "cores": cores}
        cells = [f"{rate:.1f}" for rate in rates]
        cells += [f"{1 / cpu:.1f}", f"{memory:.0f}", *(f"{one:.1f}" for one in cores)]
        print("|", " | ".join([way.name, *cells]), "|", flush=True)
    return found


def _heads(given: argparse.Namespace) -> list[str]:
    heads = [f"{one} worker{'s' * (one > 1)}, clips/s" for one in given.workers]
    cores = [f"cores for {one} clips/s" for one in given.gpu_clips_per_second]
    return ["", *heads, "a CPU second", "MiB a worker", *cores]


def _turn(way: Way, workers: int, seconds: float) -> Turn:
    before = set(multiprocessing.active_children())
    batches = iter(_loader(way, workers))
    next(batches)  # starting the workers
    started = [one.pid for one in multiprocessing.active_children() if one not in before]
    began, spent, count = time.monotonic(), sum(map(_cpu, started)), 0
    while count < 2 or time.monotonic() - began < seconds:
        next(batches)
        count += 1
    clips, passed = CLIPS * count, time.monotonic() - began
    spent = sum(map(_cpu, started)) - spent
    memory = statistics.mean(map(_own_mib, started))
    del batches  # which ends the workers
    gc.collect()
    return Turn(clips / passed, spent / clips, memory)


def _loader(way: Way, workers: int) -> DataLoader[Any]:
    settings: dict[str, Any] = {
        "num_workers": workers,
        "worker_init_fn": lambda _: torch.set_num_threads(1),
    }
    if way.read is not ours:
        return DataLoader(_Clips(way), batch_size=CLIPS, **settings)
    count = len(way.paths)
    videos = VideoList(way.paths, [-1] * count, None, [0] * count)
    grid = EncoderShape.named("vit_large").grid(SAMPLER.frames, SIZE, SIZE)
    return DataLoader(
        VideoDataset(videos, SAMPLER, SALTTransform(SIZE), seed=0),
        batch_sampler=StepBatchSampler(count, CLIPS, CLIPS, None, seed=0),
        collate_fn=MaskCollator(MultiBlockMasks(), grid, seed=0, group=CLIPS),
        **settings,
    )


class _Clips(IterableDataset[Tensor]):
    """Clips of a rival, with the transform that ours have; each worker draws its own."""

    def __init__(self, way: Way) -> None:
        self._way, self._transform = way, SALTTransform(SIZE)

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        assert worker is not None
        rng = np.random.default_rng(worker.id)
        paths = self._way.paths
        if self._way.read is not with_webdataset:  # which divides shards among workers itself
            paths = rng.permutation(paths).tolist()
        yield from map(self._transform, self._way.read(paths, rng))  # type: ignore[arg-type]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _own_mib(pid: int) -> float:
    """Returns the memory of a process that it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(one.split()[1]) for one in lines if one.startswith("Private_")) / 2**10


if __name__ == "__main__":
    main()
