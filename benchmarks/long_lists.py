"""What a long list costs: time to the end of the first step, and memory of each process.

    python benchmarks/long_lists.py [--lines 1000 1000000] [--workers 1] [--json]

The lines name a thousand small videos in as many folders as it takes, which are links to one: so
every line is a path of its own. Each run is a command in a process of its own, of one step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from salt_plugin.data.demo import write_video

VIDEOS, LABELS = 1000, 10
OVERRIDES = (
    *("method=pixel_teacher", "method.encoder=vit_nano", "method.clip.frames=4"),
    *("method.clip.size=32", "method.clip.step=1", "method.model.patch_size=8"),
    *("method.model.predictor={dim: 48, depth: 1, num_heads: 2}", "loader.batch_size=4"),
    *("trainer.max_steps=1", "trainer.gpus=0", "trainer.logger=[]", "trainer.precision=32"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _make(root, max(given.lines))
        for lines in given.lines:
            file = root / f"{lines}.csv"
            file.write_text(
                "path,label\n"
                + "".join(
                    f"{n // VIDEOS:05d}/{n % VIDEOS:05d}.mp4,{n % LABELS}\n" for n in range(lines)
                )
            )
            found[lines] = _measure(file, root / f"run-{lines}", given.workers)
            seconds, first, other = found[lines].values()
            print(f"{lines:>9,} lines {seconds:7.1f} s {first:7.0f} MiB {other:7.0f} MiB a worker")
    if given.json:
        print(json.dumps(found))


def _make(root: Path, lines: int) -> None:
    one = root / "00000"
    one.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    write_video(one / "00000.mp4", frames, fps=10)
    for number in range(1, VIDEOS):
        (one / f"{number:05d}.mp4").hardlink_to(one / "00000.mp4")
    for number in range(1, -(-lines // VIDEOS)):
        (root / f"{number:05d}").symlink_to(one)


def _measure(videos: Path, out: Path, workers: int) -> dict[str, float]:
    """Returns seconds, and MiB at most of the command and of any process that it starts."""
    command = [sys.executable, "-m", "salt_plugin.cli", "train", *OVERRIDES]
    command += [f"input_dir={videos}", f"loader.num_workers={workers}", f"hydra.run.dir={out}"]
    began, peaks = time.monotonic(), {"command": 0.0, "other": 0.0}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid, name in ((process.pid, "command"), *_below(process.pid)):
                peaks[name] = max(peaks[name], _peak_mib(pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"salt train ended with status {process.returncode}")
    return {"seconds": time.monotonic() - began, **peaks}


def _below(pid: int) -> list[tuple[int, str]]:
    """Returns the processes that one has started, and those that they have."""
    try:
        started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pair for one in map(int, started) for pair in ((one, "other"), *_below(one))]


def _peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(one.split()[1]) / 2**10 for one in lines if one.startswith("VmHWM")), default=0)


if __name__ == "__main__":
    main()
