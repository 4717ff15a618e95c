"""Masks: which tokens the encoder sees, and which are to be predicted; no torch here."""

from salt_plugin.masks.dropping import TokenDropping
from salt_plugin.masks.generator import MaskGenerator
from salt_plugin.masks.multiblock import BlockSpec, MultiBlockMasks
from salt_plugin.masks.step import IndexLists, StepMasks, split
from salt_plugin.masks.tube import TubeMasks

__all__ = [
    "BlockSpec",
    "IndexLists",
    "MaskGenerator",
    "MultiBlockMasks",
    "StepMasks",
    "TokenDropping",
    "TubeMasks",
    "split",
]
