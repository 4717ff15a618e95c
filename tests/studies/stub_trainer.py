"""Stands for training and evaluation in tests: leaves the files of a run within milliseconds.

Reads SALT_STUB_FAIL (a word of the arguments: fails at it), SALT_STUB_WAIT (a file: waits for
it after the first step of runs of other methods than SALT) and SALT_STUB_ONLINE (a method: its runs
have two encoders).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

ONLINE = os.environ.get("SALT_STUB_ONLINE", "-")


def number(*parts: str) -> float:
    return int(hashlib.sha256("".join(parts).encode()).hexdigest()[:8], 16) / 16**8


def train(overrides: list[str]) -> None:
    keys = dict(override.split("=", 1) for override in overrides)
    root = Path(keys["hydra.run.dir"].strip("'"))
    (root / "config.yaml").write_text(json.dumps({"method": {"name": keys["method"]}}))
    stages = ["teacher"] + ["student"] * (keys["method"] == "salt")
    for stage in stages:
        (root / stage).mkdir(exist_ok=True)
        loss = number(keys["method"], keys["seed"], stage)
        rows = "".join(f"{step},{loss + 1 / step},0,0,0,0,0,0,0,0\n" for step in range(1, 4))
        (root / stage / "metrics.csv").write_text(
            "step,loss,lr,weight_decay,grad_norm,context_tokens,target_tokens,clips,flops,seconds\n"
            + rows
        )
        (root / stage / "encoder.safetensors").write_text(loss.hex())
    wait = os.environ.get("SALT_STUB_WAIT")
    if wait and keys["method"] != "salt":
        print("step 1 of 3", flush=True)
        while not Path(wait).exists():
            time.sleep(0.01)
    total = None if os.environ.get("SALT_STUB_UNKNOWN") == keys["method"] else 300
    bill = {
        "convention": "exact",
        "parts": {"teacher_training": 100, "student": 200},
        "total": total,
    }
    summary = {
        "stages": [{"stage": stage, "steps": 3, "seconds": time.monotonic()} for stage in stages],
        "bill": bill,
    }
    (root / "summary.json").write_text(json.dumps(summary))


def evaluate(arguments: list[str]) -> None:
    given = dict(one.split("=", 1) for one in arguments)
    name, product = "bees", Path(given["product"])
    product.parent.mkdir(exist_ok=True)
    kinds = ["-online", ""] if product.parent.name.startswith(ONLINE) else [""]
    for kind in kinds:
        found = {
            protocol: {"accuracy": number(product.parent.name, given["seed"], name, protocol, kind)}
            for protocol in json.loads(given[f"{name}.protocols"])
        }
        product.with_stem(product.stem + kind).write_text(json.dumps({name: found}))


def probe(arguments: list[str]) -> None:
    encoder, data = Path(arguments[0]), arguments[arguments.index("--data") + 1]
    protocols = ("linear", "knn")
    found = {one: {"accuracy": number(*encoder.parts[-2:], data, one)} for one in protocols}
    print(json.dumps(found))


if __name__ == "__main__":
    print(" ".join(sys.argv[1:]))
    if os.environ.get("SALT_STUB_FAIL", "-") in sys.argv:
        sys.exit("error: the sky has fallen")
    if sys.argv[2:4] == ["salt_plugin.cli", "probe"]:
        probe(sys.argv[4:])
    elif sys.argv[2] == "salt_plugin.cli":
        train(sys.argv[4:])
    elif sys.argv[2] == "salt_plugin.studies.evaluate":
        evaluate(sys.argv[3:])
    else:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
