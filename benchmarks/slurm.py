"""How long it takes to submit a thousand held elements, and to ask how they are.

On a cluster of yours, or on `make slurm-up`:
    SLURM_CONF=... python benchmarks/slurm.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIPELINE = """\
name: many
overrides: [preset=demo, trainer.max_steps=1]
stages:
  run: {{method: pixel_teacher, sweep: ["seed=range(0,{count})"]}}
"""


def main() -> None:
    """Measures, prints a line, and cancels what was submitted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1000)
    parser.add_argument(
        "--folder", type=Path, help="that the nodes see; by default a temporary one"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        file, study = Path(folder) / "many.yaml", Path(folder) / "study"
        file.write_text(PIPELINE.format(count=given.elements))
        found = {"elements": given.elements}
        found["launch_s"] = _seconds(
            "launch", file, "cluster=slurm", "cluster.sbatch.hold=true", "--out", study
        )
        found["status_s"] = _seconds("status", study)
        found["launch_again_s"] = _seconds(
            "launch", file, "cluster=slurm", "cluster.sbatch.hold=true", "--out", study
        )
        found["cancel_s"] = _seconds("cancel", study)
        found["status_cancelled_s"] = _seconds("status", study)
    print(json.dumps(found))


def _seconds(*arguments: str | Path) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "salt_plugin.cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - began, 2)


if __name__ == "__main__":
    main()
