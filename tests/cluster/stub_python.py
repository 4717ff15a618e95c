"""Stands for Python on a node: training in milliseconds, under the rules of the real one.

Under SIGTERM or SIGUSR2 it saves and ends with status 75; the same command goes on. `$SALT_STUB` is
a folder: `fail` lists elements (`stage/name`) that fail, of which the second process does
(`stage/name:1`), or that fail as Hydra tells it (`stage/name:hydra`); `hungry` those that take
600 MB, and `seconds` is the time of a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

CONTROL = Path(os.environ["SALT_STUB"])
COLUMNS = "step,loss,flops\n"


def train(overrides: list[str]) -> None:
    keys = dict(override.split("=", 1) for override in overrides)
    root = Path(keys["hydra.run.dir"].strip("'"))
    element = "/".join(root.parts[-2:])
    teacher = keys.get("method.teacher.path", "").strip("'")
    if teacher and not (Path(teacher) / "summary.json").is_file():
        sys.exit(f"error: {teacher} has no finished teacher")
    stage = root / ("teacher" if keys["method"] == "pixel_teacher" else "student")
    stage.mkdir(parents=True, exist_ok=True)
    saved = stage / "saved.json"
    losses = json.loads(saved.read_text()) if saved.is_file() else []
    stop: list[int] = []

    def asked(number: int, frame: FrameType | None) -> None:
        stop.append(number)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, asked)
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    (root / f"pid-{rank}").write_text(str(os.getpid()))
    failing = (CONTROL / "fail").read_text().split()
    if rank > 0 and f"{element}:{rank}" in failing:
        sys.exit("error: the sky has fallen")
    while rank > 0 and not stop and not (root / "summary.json").is_file():
        time.sleep(0.05)
    if rank > 0:
        sys.exit(75 if stop else 0)
    if element in failing:
        sys.exit("error: the sky has fallen")
    if f"{element}:hydra" in failing:
        fail_as_hydra_tells_it()
    if element in (CONTROL / "hungry").read_text().split():
        taken = b"x" * 600_000_000
        time.sleep(60)
        sys.exit(f"error: nobody minds {len(taken)} bytes")
    while len(losses) < int(keys["trainer.max_steps"]) and not stop:
        time.sleep(float((CONTROL / "seconds").read_text()))
        losses.append(float(keys["seed"]) + 1 / (len(losses) + 1))
        rows = "".join(f"{n},{loss},{100 * n}\n" for n, loss in enumerate(losses, 1))
        (stage / "metrics.csv").write_text(COLUMNS + rows)
        print(f"step {len(losses)}", flush=True)
    (stage / "compute.json").write_text(json.dumps({"steps": len(losses)}))
    saved.with_suffix(".tmp").write_text(json.dumps(losses))
    saved.with_suffix(".tmp").rename(saved)
    if stop:
        print("saved, to be continued", flush=True)
        sys.exit(75)
    (root / "summary.json").write_text("{}")


def fail_as_hydra_tells_it() -> None:
    try:
        raise ValueError("the sky has fallen\nand lies there")
    except ValueError:
        traceback.print_exc()
    sys.exit("\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.")


if __name__ == "__main__":
    _, module, *arguments = sys.argv[1:]
    if module != "salt_plugin.cli":
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    if arguments[0] == "train":
        train(arguments[1:])
    else:
        assert (Path(arguments[1]) / "summary.json").is_file()
        print(json.dumps({"knn": {"accuracy": 0.5}}))
