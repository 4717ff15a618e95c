"""Memory of a long training run on videos of which one in twenty is broken.

    python benchmarks/soak.py [--videos FOLDER_OR_CSV ...] [--broken FOLDER] [overrides of Hydra]

Trains through Lightly's command, watches the memory of the process and of its loader workers,
prints one line of JSON, and ends with status 1 where the memory of all of them grows by more than
5 % after the first fifth of the steps (docs/benchmarks/soak.md). Without `--videos` and
`--broken`, files are made for it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from salt_plugin.data import read_inputs
from salt_plugin.data.demo import write_video
from salt_plugin.run_directory import read_metrics
from salt_plugin.training.skipped import read_skipped

SHARES = (20, 40, 60, 80, 100)
ALLOWED = 1.05
MADE = 114
TINY = (
    "method=pixel_teacher",
    "method.encoder=vit_nano",
    "method.clip.size=64",
    "method.clip.frames=8",
    "method.clip.step=2",
    "method.model.predictor.dim=48",
    "method.model.predictor.depth=1",
    "method.model.predictor.num_heads=2",
    "method.data.max_bad=0.2",
    "loader.batch_size=4",
    "loader.num_workers=2",
    "trainer.precision=32",
    "trainer.gpus=0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", nargs="+", help="good files; default: made for it")
    parser.add_argument("--broken", type=Path, help="folder of broken ones; default: made of good")
    parser.add_argument("--share", type=float, default=0.05, help="of broken files in all")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks")
    given, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(given, overrides, Path(folder))
    print(json.dumps(result))
    sys.exit(result["growth"]["all"] > ALLOWED)


def _measure(given: argparse.Namespace, overrides: list[str], folder: Path) -> dict[str, Any]:
    good = read_inputs(given.videos or str(_make_videos(folder / "good"))).paths
    count = math.ceil(len(good) * given.share / (1 - given.share))
    broken = _broken(given.broken) if given.broken else _break(good, count, folder / "broken")
    broken = broken[:count]
    listed = folder / "videos.csv"
    listed.write_text("".join(f"{path} -1\n" for path in [*good, *broken]))
    run = folder / "run"
    command = [
        str(Path(sys.executable).with_name("lightly-ssl-train")),
        *TINY,
        f"input_dir={listed}",
        f"hydra.run.dir={run}",
        f"trainer.max_steps={given.steps}",
        *overrides,
    ]
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        looks = list(_looks(process, run / "teacher" / "metrics.csv", given.every))
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{(folder / 'log').read_text()[-4000:]}")
    if not looks:
        sys.exit("the run was over before the first look: give more --steps, or a smaller --every")
    memory = {
        part: {share: _at(looks, share, given.steps, part) for share in SHARES}
        for part in ("training", "workers", "all")
    }
    return {
        "overrides": [*TINY, *overrides],
        "files": len(good) + len(broken),
        "broken": len(broken),
        "steps": len(read_metrics(run / "teacher" / "metrics.csv")),
        "seconds": round(time.monotonic() - began),
        "looks": len(looks),
        "skipped": Counter(
            row["reason"].partition(":")[0] for row in read_skipped(run / "skipped.csv")
        ),
        "mib": memory,
        "growth": {part: round(at[100] / at[20], 4) for part, at in memory.items()},
    }


def _looks(
    process: subprocess.Popen, metrics: Path, every: float
) -> Iterator[tuple[int, float, float]]:
    """Yields steps done, and MiB of the training process and of all others that it has started."""
    while process.poll() is None:
        time.sleep(every)
        try:
            with metrics.open() as file:
                steps = sum(1 for _ in file) - 1
            workers = sum(_mib(child) for child in _children(process.pid))
            if workers:  # they end before the run does
                yield steps, _mib(process.pid), workers
        except OSError:  # not there yet, or no more
            continue


def _children(pid: int) -> list[int]:
    own = [
        int(word)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for word in (task / "children").read_text().split()
    ]
    return own + [below for child in own for below in _children(child)]


def _mib(pid: int) -> float:
    """Memory of a process; what it shares with others is divided among them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _at(looks: list[tuple[int, float, float]], share: int, steps: int, part: str) -> float:
    """Median within 5 % of the steps around a share of them, or else the look nearest to it."""

    def distance(look: tuple[int, float, float]) -> float:
        return abs(look[0] / steps - share / 100)

    near = [look for look in looks if distance(look) <= 0.05] or [min(looks, key=distance)]
    first, last = {"training": (1, 2), "workers": (2, 3), "all": (1, 3)}[part]
    return round(statistics.median(sum(look[first:last]) for look in near), 1)


def _broken(folder: Path) -> list[str]:
    """The files of a folder, without folders; the empty ones, all alike, last."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [os.path.abspath(path) for path in sorted(files, key=lambda p: -p.stat().st_size)]


def _make_videos(folder: Path) -> Path:
    """Noise that drifts, 64 px, 2 s at 20 fps."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(MADE):
        texture = rng.integers(0, 256, (104, 64, 3), dtype=np.uint8)
        frames = np.stack([texture[t : t + 64] for t in range(40)])
        write_video(folder / f"{number}.mp4", frames, fps=20)
    return folder


def _break(good: list[str], count: int, folder: Path) -> list[str]:
    """Copies of good files: cut, with flipped bits, with a hole, no video, and empty, in turn."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        path = Path(good[number % len(good)])
        data = np.fromfile(path, np.uint8)
        half = len(data) // 2
        if number % 5 == 0:
            data = data[:half]
        elif number % 5 == 1:
            data[rng.integers(0, len(data), 200)] ^= rng.integers(1, 256, 200, dtype=np.uint8)
        elif number % 5 == 2:
            data[half : half + len(data) // 10] = 0
        elif number % 5 == 3:
            data = rng.integers(0, 256, 4096, dtype=np.uint8)
        else:
            data = data[:0]
        made.append(str(folder / f"{number}{path.suffix}"))
        data.tofile(made[-1])
    return made


if __name__ == "__main__":
    main()
