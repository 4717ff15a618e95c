"""Clips a second of feature extraction, decoding included, against the encoder alone.

    python benchmarks/features.py [--videos FOLDER_OR_CSV] [--encoder vit_tiny] [--json]

The encoder alone runs on clips that lie in memory: what a step's teacher costs in
`benchmarks/step.py`. Both take turns in one process; the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from made_videos import make_videos

from salt_plugin.config import probe_config
from salt_plugin.data import read_inputs
from salt_plugin.evaluation.encoders import open_encoder
from salt_plugin.evaluation.features import encode
from salt_plugin.evaluation.views import ViewDataset, clip_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", help="default: files that are made for it")
    parser.add_argument("--encoder", default="vit_tiny")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--step", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "32"], default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="one last line of JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(arguments, arguments.videos or make_videos(Path(folder)))
    print(f"encoder alone        {result['encoder']:7.2f} clips/s")
    for workers, clips_per_s in result["workers"].items():
        share = clips_per_s / result["encoder"]
        print(f"features, {workers} workers {clips_per_s:7.2f} clips/s, {share:.2f} of it")
    if arguments.json:
        print(json.dumps(result))


@torch.no_grad()
def _measure(arguments: argparse.Namespace, videos: str) -> dict:
    encoder = open_encoder(f"random:{arguments.encoder}", size=arguments.size)
    encoder.to(arguments.device)
    paths = read_inputs(videos).paths
    config = probe_config(
        frames=arguments.frames,
        size=arguments.size,
        step=arguments.step,
        feature_batch_size=arguments.batch_size,
        precision=arguments.precision,
    )
    paths = read_inputs(videos).paths
    paths = [paths[number % len(paths)] for number in range(arguments.clips)]
    dataset = ViewDataset(paths, config, encoder.mean, encoder.std)
    clips_bvcthw = dataset[0].expand(arguments.batch_size, -1, -1, -1, -1, -1).contiguous()

    def alone() -> None:
        for _ in range(arguments.clips // arguments.batch_size):
            encode(encoder, clips_bvcthw, config).mean(2).cpu()

    def features(workers: int) -> None:
        with_workers = replace(config, workers=workers)
        for _, clips in clip_batches(ViewDataset(paths, with_workers, encoder.mean, encoder.std)):
            encode(encoder, clips, config).mean(2).cpu()

    alone()
    turns = [
        (
            _seconds(alone),
            {count: _seconds(partial(features, count)) for count in arguments.workers},
        )
        for _ in range(arguments.turns)
    ]
    return {
        "encoder": arguments.clips / min(turn[0] for turn in turns),
        "workers": {
            count: arguments.clips / min(turn[1][count] for turn in turns)
            for count in arguments.workers
        },
    }


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
