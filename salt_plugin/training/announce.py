"""What a run says before it trains."""

from __future__ import annotations

import torch

from salt_plugin.config import RunConfig, rate_of_another_batch, registry
from salt_plugin.data.sources import VideoList
from salt_plugin.report.console import console
from salt_plugin.run_directory import RunDirectory
from salt_plugin.shapes import EncoderShape
from salt_plugin.training.build import step_cost
from salt_plugin.training.execution import devices, uses_gpu
from salt_plugin.training.length import mean_cost
from salt_plugin.training.parts import Parts


def announce(config: RunConfig, parts: Parts, videos: VideoList, directory: RunDirectory) -> None:
    """Says on standard error what is trained on what, where, and what is odd about it."""
    out = console(stderr=True)
    for name, line in (
        ("data", _data(config, videos)),
        ("model", _model(config, parts)),
        ("device", _device(config)),
        ("folder", str(directory.root)),
    ):
        out.print(f"{name:<7} {line}", soft_wrap=True)
    rate = rate_of_another_batch(config, config.method.global_batch_size)
    if rate is not None:
        out.print(rate, soft_wrap=True)


def _data(config: RunConfig, videos: VideoList) -> str:
    labels = set(videos.labels) - {-1}
    classes = f"{len(labels)} classes" if labels else "no labels"
    count, clips = len(videos.paths), config.method.global_batch_size
    few = f"; fewer than the {clips} clips of a step, which repeats them" if count < clips else ""
    return f"{count:,} videos, {classes}{few}"


def _model(config: RunConfig, parts: Parts) -> str:
    clip, grid = config.method.clip, "x".join(map(str, parts.grid))
    sizes = f"clips of {clip.frames} frames of {clip.size} pixels, {grid} tokens"
    teacher = "" if parts.teacher == parts.encoder else f", teacher {_named(parts.teacher)}"
    cost = mean_cost(config, parts, step_cost(registry.get(config.method.name), parts))
    heads = ""
    for head in cost.keys() & {"predictor", "decoder"}:
        share = cost[head] / (cost[head] + cost["encoder"])
        shape = f"{parts.predictor.dim} wide, {parts.predictor.depth} deep"
        heads = f"; {head} {shape}, {share:.0%} of the FLOPs of what is trained"
    return f"{config.method.name}: {_named(parts.encoder)}{teacher}{heads}; {sizes}"


def _named(shape: EncoderShape) -> str:
    return f"{shape.name} ({shape.embed_dim} wide, {shape.depth} deep)"


def _device(config: RunConfig) -> str:
    count, asked = devices(config), config.trainer.gpus
    batch = f"{config.method.global_batch_size} clips a step, {config.trainer.precision}"
    if uses_gpu(config):
        return f"{count} x {torch.cuda.get_device_name()}; {batch}"
    where = f"{count} processes on CPUs" if count > 1 else "CPU"
    missing = f" (trainer.gpus={asked}, and torch sees no GPU)" if asked > 1 else ""
    return f"{where}{missing}; {batch}"
