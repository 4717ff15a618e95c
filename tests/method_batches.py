"""A method of the registry and a batch for it, as a configuration describes them."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

import torch
from small_run import SMALL

from salt_plugin.batch import Batch, mask_sets
from salt_plugin.config import RunConfig, compose, load_config, registry
from salt_plugin.masks import StepMasks
from salt_plugin.methods import Recipe, VideoMethod
from salt_plugin.models import FrozenTeacher, VideoEncoder
from salt_plugin.shapes import local_side
from salt_plugin.training.labelled import settled
from salt_plugin.training.parts import build_parts

CLIPS = 2


def small_config(name: str, videos: Path) -> RunConfig:
    """Returns the configuration of a small run of a method on videos with classes."""
    overrides = [f"method={name}", f"input_dir={videos}", *SMALL]
    if registry.get(name).classifies:
        overrides.append("checkpoint=null")
    return settled(load_config(compose(overrides)))


def new_method(config: RunConfig, drop_path: float = 0.0) -> VideoMethod:
    """Returns a method with random weights; a teacher is an encoder of its own."""
    spec, parts = registry.get(config.method.name), build_parts(config)
    teacher = FrozenTeacher(VideoEncoder(parts.teacher)) if spec.teacher else None
    kind: type[VideoMethod] = resolve_name(spec.method)
    encoder = VideoEncoder(parts.encoder, drop_path=drop_path)
    return kind.configured(config.method, parts, encoder, Recipe(total_steps=10), teacher)


def new_batch(config: RunConfig, step: int = 0) -> Batch:
    """Returns random clips uint8 with the masks of a step."""
    parts, clip = build_parts(config), config.method.clip
    masks = StepMasks(parts.masks, parts.grid, seed=0, clips=CLIPS, group=CLIPS)
    drawn = torch.Generator().manual_seed(step)

    def clips(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=drawn)

    whole, local_views = clips(CLIPS, 3, clip.frames, clip.size, clip.size), None
    if views := parts.transform.local_views:
        side = local_side(clip.size, config.method.model.patch_size)
        local_views = clips(CLIPS, views, 3, clip.frames, side, side)
    sets = mask_sets(masks, step, range(CLIPS))
    return Batch(whole, torch.arange(CLIPS), sets, step, local_views=local_views)
