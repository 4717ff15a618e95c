"""How many clips a device can hold at once, found by trying."""

from __future__ import annotations

import time

import torch

from salt_plugin.batch import MaskCollator
from salt_plugin.data import ClipItem, SampleKey
from salt_plugin.models import VideoEncoder
from salt_plugin.training.budget import load_teacher, named_teacher_path
from salt_plugin.training.build import Stage, new_stage
from salt_plugin.training.execution import autocast_dtype
from salt_plugin.training.foreign_teacher import TeacherFile
from salt_plugin.training.parts import Run

MOST_CLIPS = 1024
TRIALS = 20.0  # seconds


def last_stage(run: Run) -> Stage:
    """Returns the last stage of a run, with random weights for a teacher that is not there yet."""
    config, parts, teacher = run.config, run.parts, None
    if (path := named_teacher_path(config)) is not None:
        teacher = load_teacher(path, parts)
    elif len(run.plan.stages) > 1:
        normalization = parts.transform.normalization
        teacher = TeacherFile(VideoEncoder(parts.teacher), parts.teacher, normalization)
    return new_stage(run, run.plan.stages[-1], teacher)


def largest_batch(run: Run, device: torch.device) -> int:
    """Returns the most clips, of 1, 2, 4 and so on, with which a device can make a step.

    Args:
        run: The run, of which the last stage is tried.
        device: To try on.
    """
    config, parts, method = run.config, run.parts, last_stage(run).method.to(device)
    for stack in method.block_stacks():
        stack.activation_checkpointing = config.method.model.activation_checkpointing
    optimizer, dtype = method.optimizer(), autocast_dtype(config)
    clip = config.method.clip
    black = torch.zeros(clip.frames, 3, clip.size, clip.size, dtype=torch.uint8)
    shown = parts.transform(black)
    item = ClipItem(shown, 0, SampleKey(0, 0, 0), "", [], parts.transform.normalization)
    collate = MaskCollator(parts.masks, parts.grid, config.seed, config.method.mask_group)
    fits, clips, began = 0, 1, time.monotonic()
    while clips <= MOST_CLIPS and time.monotonic() - began < TRIALS:
        try:
            batch = collate([item] * clips).to(device)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = method(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        except torch.OutOfMemoryError:
            break
        fits, clips = clips, 2 * clips
    return fits
