"""What a run says before it trains."""

from __future__ import annotations

import math

import torch

from salt_plugin.config import RunConfig, registry
from salt_plugin.data.sources import VideoList
from salt_plugin.report.compute import plan_line
from salt_plugin.report.console import console
from salt_plugin.run_directory import RunDirectory
from salt_plugin.shapes import EncoderShape
from salt_plugin.training.execution import devices, uses_gpu
from salt_plugin.training.plan import RunPlan
from salt_plugin.training.run_shapes import RunShapes


def announce(
    config: RunConfig, shapes: RunShapes, plan: RunPlan, videos: VideoList, directory: RunDirectory
) -> None:
    """Says on standard error what is trained on what, where, and what is odd about it."""
    out = console(stderr=True)
    for name, line in (
        ("data", _data(config, videos)),
        ("model", _model(config, shapes, plan)),
        ("plan", plan_line([(stage.name, stage.steps, stage.flops()) for stage in plan.stages])),
        ("device", _device(config)),
        ("folder", str(directory.root)),
    ):
        out.print(f"{name:<7} {line}", soft_wrap=True)
    rate = rate_of_another_batch(config, config.method.global_batch_size)
    if rate is not None:
        out.print(rate, soft_wrap=True)


def rate_of_another_batch(config: RunConfig, clips: int) -> str | None:
    """Returns a line where the printed learning rate runs at another batch than it is printed for.

    Args:
        config: The run's.
        clips: Of a step, over all devices.
    """
    rate, printed = config.optimizer.lr, registry.PRINTED_BATCH
    if rate != registry.get(config.method.name).printed_lr or clips == printed:
        return None
    scaled = rate * math.sqrt(clips / printed)
    written = f"{rate:.2e}".replace("e-0", "e-")
    return (
        f"optimizer.lr={written} is printed for {printed} clips a step; this run has "
        f"{clips}. Scaled by the square root, as is customary for AdamW, it would be "
        f"optimizer.lr={scaled:.1e}"
    )


def _data(config: RunConfig, videos: VideoList) -> str:
    labels = set(videos.labels) - {-1}
    classes = f"{len(labels)} classes" if labels else "no labels"
    count, clips = len(videos.paths), config.method.global_batch_size
    few = f"; fewer than the {clips} clips of a step, which repeats them" if count < clips else ""
    return f"{count:,} videos, {classes}{few}"


def _model(config: RunConfig, shapes: RunShapes, plan: RunPlan) -> str:
    clip, grid = config.method.clip, "x".join(map(str, shapes.grid))
    sizes = f"clips of {clip.frames} frames of {clip.size} pixels, {grid} tokens"
    last = plan.stages[-1]
    own = last.pricing.shapes
    teacher = "" if own.teacher == own.encoder else f", teacher {_named(own.teacher)}"
    cost = last.pricing.price(0).flops
    heads = ""
    for head in cost.keys() & {"predictor", "decoder"}:
        share = cost[head] / (cost[head] + cost["encoder"])
        shape = f"{own.predictor.dim} wide, {own.predictor.depth} deep"
        heads = f"; {head} {shape}, {share:.0%} of the FLOPs of what is trained"
    return f"{config.method.name}: {_named(own.encoder)}{teacher}{heads}; {sizes}"


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
