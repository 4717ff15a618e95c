"""Decoded clips a second, by decoder and by loader workers, and what limits a training step.

    python benchmarks/data.py [--videos FOLDER_OR_CSV] [--json]

Without `--videos`, H.264 files like those of web collections are made in a temporary folder:
256 px, 10 s at 30 fps, a keyframe every second (docs/benchmarks/data.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_videos import make_videos
from torch.utils.data import DataLoader

from salt_plugin.batch import MaskCollator
from salt_plugin.data import (
    ClipSampler,
    StepBatchSampler,
    VideoDataset,
    open_video,
    read_inputs,
)
from salt_plugin.losses import LatentLoss
from salt_plugin.masks import MultiBlockMasks
from salt_plugin.methods import SALT, Recipe
from salt_plugin.models import FrozenTeacher, Predictor, VideoEncoder
from salt_plugin.shapes import EncoderShape, PredictorShape
from salt_plugin.transforms import SALTTransform
from salt_plugin.video.opening import READERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", help="default: files that are made for it")
    parser.add_argument("--encoder", default="vit_tiny")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--step", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu", help="of the step")
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(arguments, arguments.videos or make_videos(Path(folder)))
    for decoder, clips_per_s in result["decoders"].items():
        print(f"decoder {decoder:<8} {clips_per_s:7.1f} clips/s in one process, no transform")
    for workers, clips_per_s in result["workers"].items():
        print(f"loader, {workers} workers {clips_per_s:7.1f} clips/s, transform and masks included")
    print(f"step of {arguments.encoder} {result['step']:7.1f} clips/s")
    print(f"limited by {result['limited_by']}")
    if arguments.json:
        print(json.dumps(result))


def _measure(arguments: argparse.Namespace, videos: str) -> dict[str, Any]:
    listed = read_inputs(videos)
    sampler = ClipSampler(arguments.frames, step=arguments.step)
    decoders = {
        name: _decoder_speed(partial(_read, reader=name), listed.paths, sampler, arguments)
        for name in READERS
    }
    shape = EncoderShape.named(arguments.encoder)
    grid = shape.grid(arguments.frames, arguments.size, arguments.size)

    def loader(workers: int) -> DataLoader:
        clips = arguments.batch_size
        steps = StepBatchSampler(len(listed.paths), clips, clips, arguments.batches + 1, seed=0)
        return DataLoader(
            VideoDataset(listed, sampler, SALTTransform(arguments.size), seed=0),
            batch_sampler=steps,
            collate_fn=MaskCollator(MultiBlockMasks(), grid, seed=0, group=clips),
            num_workers=workers,
            worker_init_fn=lambda _: torch.set_num_threads(1),
        )

    workers = {count: _loader_speed(loader(count), arguments) for count in arguments.workers}
    step = _step_speed(shape, next(iter(loader(0))).to(arguments.device))
    data = max(workers.values())
    return {
        "decoders": decoders,
        "workers": workers,
        "step": step,
        "limited_by": "data" if data < step else "compute",
    }


def _decoder_speed(
    read: Any, paths: list[str], sampler: ClipSampler, arguments: argparse.Namespace
) -> float:
    rng = np.random.default_rng(0)
    seconds = []
    for number in range(arguments.batches * arguments.batch_size):
        began = time.perf_counter()
        frames = read(paths[number % len(paths)], sampler, rng)
        seconds.append(time.perf_counter() - began)
        assert len(frames) == arguments.frames
    return 1 / statistics.mean(seconds)


def _read(path: str, sampler: ClipSampler, rng: np.random.Generator, reader: str) -> Any:
    video = open_video(path, reader)
    return video.frames(sampler.indices(video.times, rng))


def _loader_speed(loader: DataLoader, arguments: argparse.Namespace) -> float:
    batches = iter(loader)
    next(batches)  # starting the workers
    began = time.perf_counter()
    for _ in range(arguments.batches):
        next(batches)
    return arguments.batches * arguments.batch_size / (time.perf_counter() - began)


def _step_speed(shape: EncoderShape, batch: Any) -> float:
    method = SALT(
        VideoEncoder(shape),
        Predictor(shape.embed_dim, shape.embed_dim, PredictorShape()),
        FrozenTeacher(VideoEncoder(shape), torch.bfloat16),
        LatentLoss(),
        Recipe(total_steps=10**6),
    ).to(batch.clips.device)
    optimizer = method.optimizer()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        with torch.autocast(batch.clips.device.type, torch.bfloat16):
            loss = method(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    return len(batch.clips) / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
