"""Token counts of multi-block masks on a device with 24 clips of 1,568 tokens, as drawn."""

from __future__ import annotations

from salt_plugin.compute.mask_lengths import draw_lengths

MASKS = {"_target_": "salt_plugin.masks.MultiBlockMasks"}
LENGTHS = draw_lengths(MASKS, (8, 14, 14), 24, 200, seed=0)
