"""What a run takes beside FLOPs: memory of a device, tokens, room on disk; no torch here."""

from __future__ import annotations

import math
from dataclasses import replace

from salt_plugin.compute.cost import encoder_parameters
from salt_plugin.compute.memory import FLOAT32, Execution, step_memory
from salt_plugin.compute.pricing import SAMPLED
from salt_plugin.config import RunConfig
from salt_plugin.training.plan import RunPlan, StagePlan

# Precisions under which matrix products are taken in two bytes (`trainer.precision`).
HALF = ("16", "16-mixed", "bf16", "bf16-mixed")
# Of a device's memory: the rest is what the model leaves out.
SHARE = 0.9


def stage_memory(config: RunConfig, stage: StagePlan, devices: int) -> dict[str, int]:
    """Returns the bytes of a device in the step of a stage that takes most, by part.

    Args:
        config: Of the run, in which `method.global_batch_size` is a number.
        stage: Its plan; `SAMPLED` steps are looked at.
        devices: That train together.
    """
    own = math.ceil(config.method.global_batch_size / devices)
    parts = math.ceil(own / config.loader.batch_size)
    how = Execution(
        clips=math.ceil(own / parts),
        micro_batches=parts,
        devices=devices,
        value=2 if str(config.trainer.precision) in HALF else 4,
        checkpointing=config.method.model.activation_checkpointing,
    )
    drawn = {tuple(group.masks) for step in stage.pricing.lengths(SAMPLED) for group in step}
    form, shapes = stage.spec.step, stage.pricing.shapes
    return max(
        (step_memory(form, shapes, masks, how) for masks in drawn),
        key=lambda parts: sum(parts.values()),
    )


def modelled_batch(config: RunConfig, plan: RunPlan, devices: int, room: int) -> int:
    """Returns the most clips, of 1, 2, 4 and so on, with which every stage fits by this model.

    Args:
        config: Of the run, in which `method.global_batch_size` is a number.
        plan: Of the run.
        devices: That train together.
        room: Bytes of a device.
    """
    fits, clips = 0, 1
    while clips <= config.method.global_batch_size // devices:
        loader = replace(config.loader, batch_size=clips)
        tried = replace(config, loader=loader)
        taken = (stage_memory(tried, stage, devices) for stage in plan.stages)
        if max(sum(parts.values()) for parts in taken) > SHARE * room:
            break
        fits, clips = clips, 2 * clips
    return fits


def stage_tokens(stage: StagePlan) -> int:
    """Returns the expected context and target tokens of a stage, of all clips in all mask sets."""
    drawn = stage.pricing.lengths(SAMPLED)
    clips = sum(group.clips for step in drawn for group in step)
    tokens = sum(group.clips * sum(map(sum, group.masks)) for step in drawn for group in step)
    return stage.steps * stage.pricing.masks.clips * tokens // clips


def stage_storage(config: RunConfig, stage: StagePlan, memory: dict[str, int], last: bool) -> int:
    """Returns the bytes that a stage leaves: two checkpoints, encoders, and a predictor.

    Args:
        config: Of the run.
        stage: Its plan.
        memory: Of the stage, by part.
        last: Whether it is the last of the run, whose encoders are kept on the way.
    """
    form = stage.spec.step
    average = memory["teacher"] if form.average else 0
    checkpoint = memory["weights"] + memory["optimizer"] + average
    encoder = FLOAT32 * encoder_parameters(stage.pricing.shapes.encoder)
    every = config.method.encoders_every_n_steps
    kept = math.ceil(stage.steps / every) if every and last else 0
    predictor = memory["weights"] - encoder if form.frozen or form.average else 0
    return 2 * checkpoint + (1 + kept) * encoder + predictor
