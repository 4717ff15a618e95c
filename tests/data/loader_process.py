"""Run by test_start_methods: a process that trains, as far as its loader; told what to do next."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from pathlib import Path

from torch import Tensor


def as_they_are(frames: Tensor) -> Tensor:
    return frames.float().transpose(0, 1)


def main(videos: str, folder: str, method: str) -> None:
    # Not above: a spawned worker imports this module again, and needs little of it.
    from small_run import TINY

    from salt_plugin.config import compose, load_config
    from salt_plugin.data.stream import training_loader, training_videos
    from salt_plugin.files import hold

    signal.signal(signal.SIGTERM, lambda *_: None)
    multiprocessing.set_start_method(method)
    lock = hold(Path(folder))
    config = load_config(
        compose(["method=salt", *TINY, f"input_dir={videos}", "loader.num_workers=2"])
    )
    loader = training_loader(
        config,
        training_videos(config),
        as_they_are,
        list,
        seed=0,
        total_steps=20,
        start_step=0,
        rank=0,
        world_size=1,
    )
    batches = iter(loader)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    for command in map(str.strip, sys.stdin):
        if command == "next":
            print([float(item.clip.double().sum()) for item in next(batches)], flush=True)
        elif command == "release":
            assert lock is not None
            lock.close()
            print("released", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
