"""Runs the embedded demo with several seeds and prints the table of docs/demo.md.

    python benchmarks/demo_seeds.py --seeds 1 2 3 --out runs/seeds

Further arguments are Hydra overrides of every run. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    arguments, overrides = parser.parse_known_args()
    summaries = []
    for seed in arguments.seeds:
        folder = arguments.out / f"seed-{seed}"
        began = time.perf_counter()
        command = ["salt", "train", "preset=demo", f"seed={seed}", f"hydra.run.dir={folder}"]
        command += overrides
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s in all", flush=True)
        summaries.append(json.loads((folder / "summary.json").read_text()))
    print(table(summaries))


def table(summaries: list[dict]) -> str:
    """Mean and standard deviation over the runs of every probe, as Markdown."""
    columns = list(summaries[0]["probe"]["chance"])
    titles = [column.replace("_", " ").replace("knn", "k-NN") for column in columns]
    lines = ["| encoder | " + " | ".join(titles) + " |", "|---" * (len(columns) + 1) + "|"]
    for rows in zip(*(summary["probe"]["rows"] for summary in summaries), strict=True):
        cells = [
            f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
            for name in columns
            if (values := [row[name] for row in rows])
        ]
        lines.append(f"| {rows[0]['encoder']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
