"""Mask sets as one group of clips gets them in training."""

from __future__ import annotations

from salt_plugin.batch import MaskSet, mask_sets
from salt_plugin.masks import MaskGenerator, StepMasks
from salt_plugin.shapes import Grid


def draw(
    masks: MaskGenerator, clips: int, grid: Grid, seed: int = 0, step: int = 0
) -> list[MaskSet]:
    return mask_sets(StepMasks(masks, grid, seed, clips, group=clips), step, range(clips))
