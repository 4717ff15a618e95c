"""Clips of 16 frames, every fourth, of files and of shards: ours, and as plain rivals read them."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from salt_plugin.data import ClipSampler, open_video

SAMPLER = ClipSampler(16, step=4)
# Yields clips without an end, uint8 [T, C, H, W], of files, or of whole shards, in their order.
Read = Callable[[list[str], np.random.Generator], Iterator[Tensor]]


def missing(name: str) -> str:
    """Returns why a package cannot be measured here, nothing where it can."""
    try:
        package = importlib.import_module("torchcodec.decoders" if name == "torchcodec" else name)
        if name == "torchcodec":
            package.VideoDecoder(b"")  # which loads FFmpeg, and then finds no video
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ImportError) or "Could not load" in str(error):
            return f"{name} does not load here: {str(error).strip().splitlines()[0]}"
    return ""


def ours(paths: list[str], rng: np.random.Generator) -> Iterator[Tensor]:
    """Reads as `method.data.reader=pyav` does."""
    while True:
        for path in paths:
            video = open_video(path)
            yield video.frames(SAMPLER.indices(video.times, rng))


def with_decord(paths: list[str], rng: np.random.Generator) -> Iterator[Tensor]:
    """Reads with decord by itself, whose frames are not always those that were asked for."""
    while True:
        for path in paths:
            yield _decord(path, rng)


def with_torchcodec(paths: list[str], rng: np.random.Generator) -> Iterator[Tensor]:
    """Reads with torchcodec."""
    decoders: Any = importlib.import_module("torchcodec.decoders")
    while True:
        for path in paths:
            video = decoders.VideoDecoder(path, num_ffmpeg_threads=1)
            picked = _indices(video.metadata.num_frames, rng)
            yield video.get_frames_at(indices=picked.tolist()).data


def with_webdataset(shards: list[str], rng: np.random.Generator) -> Iterator[Tensor]:
    """Reads shards from end to end, one clip of each sample: of a video, or of its JPEG frames."""
    webdataset: Any = importlib.import_module("webdataset")
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).repeat():
        if "mp4" in sample:
            yield _decord(io.BytesIO(sample["mp4"]), rng)
        else:
            names = sorted(name for name in sample if name.endswith(".jpg"))
            picked = [sample[names[index]] for index in _indices(len(names), rng)]
            frames = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in picked]
            yield torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def _decord(file: Any, rng: np.random.Generator) -> Tensor:
    decord: Any = importlib.import_module("decord")
    video = decord.VideoReader(file, num_threads=1)
    frames = video.get_batch(_indices(len(video), rng)).asnumpy()
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _indices(count: int, rng: np.random.Generator) -> np.ndarray:
    return SAMPLER.indices(np.arange(count, dtype=np.float64), rng)
