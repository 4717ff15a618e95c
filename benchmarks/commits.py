"""Step time and time to the first step of two checkouts, by whole runs in turns.

    python benchmarks/commits.py ../before . --input LIST [--encoder vit_tiny] [--pairs 10]

Each pair has a seed of its own. A run of SALT starts with its teacher, whose first and only step
ends the start; steps are the student's. Masks may differ between the two, so that time is told over
FLOPs.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LIMIT = 300.0


class Run(NamedTuple):
    """Seconds to the first step, and seconds a TFLOP of those after it."""

    start: float
    step: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--input", required=True, help="videos that both read")
    parser.add_argument("--encoder", default="vit_tiny")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=10)
    given = parser.parse_args()
    pairs = []
    for seed in range(1, given.pairs + 1):
        before, after = (_run(root.resolve(), given, seed) for root in (given.before, given.after))
        pairs.append((before, after))
        ratios = [new / old for old, new in zip(before, after, strict=True)]
        print(f"{seed}: start {ratios[0]:.3f}, step {ratios[1]:.3f}", flush=True)
    for name in Run._fields:
        old, new = ([getattr(pair[i], name) for pair in pairs] for i in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
        medians = f"{statistics.median(old):.3f} s, {statistics.median(new):.3f} s"
        print(f"{name}: {medians}; median of the ratios {ratio:.3f}")


def _run(root: Path, given: argparse.Namespace, seed: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "salt_plugin.cli", "train", "method=salt"),
            *(f"input_dir={given.input}", f"method.encoder={given.encoder}", f"seed={seed}"),
            *(f"method.clip.size={given.size}", "method.clip.frames=8", "method.clip.step=1"),
            *("loader.batch_size=4", "loader.num_workers=0", "method.data.cache=true"),
            *("method.model.predictor.dim=384", "method.model.predictor.depth=12"),
            *("method.model.predictor.num_heads=12", f"trainer.max_steps={given.steps}"),
            "method.teacher.max_steps=1",
            f"hydra.run.dir={folder}/run",
        ]
        metrics = Path(folder, "run", "teacher", "metrics.csv")
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not metrics.is_file() and process.poll() is None:
            time.sleep(0.005)
            if time.perf_counter() - began > LIMIT:
                process.kill()
        opened = time.perf_counter() - began
        _, errors = process.communicate(timeout=LIMIT)
        if process.returncode:
            raise SystemExit(f"{root}: {errors.strip().splitlines()[-1]}")
        teacher, student = (_rows(metrics.parents[1] / name) for name in ("teacher", "student"))
        first, last = student[0], student[-1]
        seconds = float(last["seconds"]) - float(first["seconds"])
        tflops = (float(last["flops"]) - float(first["flops"])) / 1e12
        return Run(opened + float(teacher[0]["seconds"]), seconds / tflops)


def _rows(stage: Path) -> list[dict[str, str]]:
    with (stage / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
