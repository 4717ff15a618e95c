"""Mask generators: which tokens the encoder sees, and which are to be predicted."""

from salt_plugin.hidden_places import BlockSpec
from salt_plugin.masks.collate import Batch, MaskCollator
from salt_plugin.masks.multiblock import MultiBlockMasks
from salt_plugin.masks.tube import TubeMasks
from salt_plugin.masks.types import MaskGenerator, MaskSet

__all__ = [
    "Batch",
    "BlockSpec",
    "MaskCollator",
    "MaskGenerator",
    "MaskSet",
    "MultiBlockMasks",
    "TubeMasks",
]
