"""How long a checkpoint keeps training waiting, written by a thread and written at once."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from salt_plugin.files import sync
from salt_plugin.methods import Recipe
from salt_plugin.models import VideoEncoder
from salt_plugin.shapes import EncoderShape
from salt_plugin.training.checkpoint import on_host


def training_state(encoder: str) -> dict[str, Any]:
    """Returns what a checkpoint of an encoder holds, weights and AdamW's two moments."""
    model = VideoEncoder(EncoderShape.named(encoder))
    optimizer = Recipe(total_steps=10, warmup_steps=1).optimizer([model])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "global_step": 1,
    }


def write_at_once(state: dict[str, Any], path: Path) -> None:
    """What a trainer does that waits for the disk."""
    torch.save(state, path.with_suffix(".tmp"))
    sync(path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def longest_pause(writing: Future[None]) -> float:
    """Returns for how long Python has not come to its turn, at most, while a file is written."""
    longest, before = 0.0, time.perf_counter()
    while not writing.done():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    writing.result()
    return longest


def measure(encoder: str, folder: Path, rounds: int, device: str) -> dict[str, Any]:
    state = training_state(encoder)
    if device != "cpu":
        model = state["state_dict"]
        state["state_dict"] = {name: value.to(device) for name, value in model.items()}
        for moments in state["optimizer_states"][0]["state"].values():
            moments.update({name: moments[name].to(device) for name in ("exp_avg", "exp_avg_sq")})
    path = folder / "last.ckpt"
    waiting, at_once, writing, pauses = [], [], [], []
    with ThreadPoolExecutor(1) as thread:
        for _ in range(rounds):
            began = time.perf_counter()
            written = thread.submit(write_at_once, on_host(state), path)
            waiting.append(time.perf_counter() - began)
            pauses.append(longest_pause(written))
            writing.append(time.perf_counter() - began - waiting[-1])
            at_once.append(seconds(lambda: write_at_once(state, folder / "at_once.ckpt")))
    return {
        "encoder": encoder,
        "gigabytes": path.stat().st_size / 1e9,
        "stall": statistics.median(waiting),
        "written_beside": statistics.median(writing),
        "longest_pause": statistics.median(pauses),
        "stall_at_once": statistics.median(at_once),
        "ratio": statistics.median(a / b for a, b in zip(at_once, waiting, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="vit_base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(given.encoder, Path(folder), given.rounds, given.device)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>16}  {value if isinstance(value, str) else f'{value:.3f}'}")


if __name__ == "__main__":
    main()
