"""From `input_dir` to training batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from salt_plugin.config import RunConfig, require_input
from salt_plugin.config.application import DEMO_PREFIX
from salt_plugin.data.clips import ClipSampler
from salt_plugin.data.dataset import Transform, VideoDataset
from salt_plugin.data.demo import DemoSpec, demo_list, spec_of
from salt_plugin.data.loader import ClipLoader
from salt_plugin.data.sampler import StepBatchSampler
from salt_plugin.data.sources import VideoList, read_inputs, require_readable
from salt_plugin.data.workers import loader_workers

Collate = Callable[[list[Any]], Any]


def training_videos(config: RunConfig, listed: VideoList | None = None) -> VideoList:
    """Lists the videos of `input_dir`; of `demo:FILE` those of a list of the embedded demo set.

    Args:
        config: Of the run.
        listed: They, where they are listed already; they are checked.

    Raises:
        DataError: The input is missing, broken, or holds no readable video.
        ConfigError: `input_dir` is empty, or the weights do not fit the inputs.
    """
    require_input(config)
    videos = listed or read_inputs(inputs_of(config, config.input_dir))
    _sampler(config, videos, config.seed, total_steps=1)  # finds weights that cannot work
    require_readable(videos, config.method.data.reader, config.method.data.timeout)
    return videos


def inputs_of(config: RunConfig, inputs: str | list[str]) -> str | list[str]:
    """Returns inputs as `read_inputs` takes them, `demo:FILE` included."""

    def found(given: str) -> str:
        name = given.removeprefix(DEMO_PREFIX)
        return given if name == given else demo_list(name, demo_spec(config))

    return found(inputs) if isinstance(inputs, str) else [found(one) for one in inputs]


def demo_spec(config: RunConfig) -> DemoSpec:
    """Returns what `method.data.demo` describes.

    Raises:
        ConfigError: A key is unknown.
    """
    return spec_of(config.method.data.demo, "method.data.demo")


def clip_sampler(config: RunConfig) -> ClipSampler:
    """Returns the sampler of `method.clip`; `fps` goes before `step`."""
    clip = config.method.clip
    return ClipSampler(clip.frames, None if clip.fps else clip.step, clip.fps)


def training_loader(
    config: RunConfig,
    videos: VideoList,
    transform: Transform,
    collate: Collate,
    *,
    seed: int,
    sharing: int = 1,
    stall: float | None = None,
    **place: Any,
) -> ClipLoader:
    """Returns a device's micro-batches of a stage, a function of the seed.

    Args:
        config: The run.
        videos: The videos.
        transform: Of clips; see `VideoDataset`.
        collate: Makes a batch of items.
        seed: Of the stage.
        sharing: Training processes on these cores; the workers are divided among them.
        stall: Seconds without a batch of the workers after which the loader raises a `LoaderError`.
        **place: `total_steps`, `start_step`, `rank` and `world_size` of `StepBatchSampler`.
    """
    data = config.method.data
    workers = loader_workers(config.loader.num_workers, sharing)
    dataset = VideoDataset(
        videos,
        clip_sampler(config),
        transform,
        seed,
        cache=data.cache,
        reader=data.reader,
        timeout=data.timeout,
    )
    return ClipLoader(
        dataset,
        batch_sampler=_sampler(config, videos, seed, **place),
        collate_fn=collate,
        workers=workers,
        prefetch_factor=config.loader.prefetch_factor if workers else None,
        stall=stall,
        key="method.data.stall",
        pin_memory=torch.cuda.is_available() and config.trainer.gpus > 0,
    )


def _sampler(config: RunConfig, videos: VideoList, seed: int, **place: Any) -> StepBatchSampler:
    weights = config.method.data.weights
    return StepBatchSampler(
        len(videos.paths),
        config.method.global_batch_size or config.loader.batch_size,
        config.loader.batch_size,
        seed=seed,
        shuffle=config.loader.shuffle,
        source=videos.source if weights else None,
        weights=weights,
        **place,
    )
