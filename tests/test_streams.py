"""Clips, orders and masks of a run draw from numbers of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salt_plugin.data.clips import ClipSampler
from salt_plugin.data.dataset import VideoDataset
from salt_plugin.data.sampler import StepBatchSampler
from salt_plugin.data.sources import VideoList
from salt_plugin.errors import DataError
from salt_plugin.masks import MultiBlockMasks, StepMasks
from salt_plugin.transforms import SALTTransform

CLIPS, STEPS = 4, 3


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_nothing_shares_its_numbers(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    drawn: list[int] = []
    original = np.random.default_rng

    def noting(words: Any) -> np.random.Generator:
        generator = original(words)
        drawn.append(generator.bit_generator.state["state"]["state"])
        return generator

    monkeypatch.setattr(np.random, "default_rng", noting)
    masks = StepMasks(MultiBlockMasks(), (2, 6, 6), seed, CLIPS, group=2)
    videos = VideoList(["missing.mp4"] * 3, [0] * 3, None, [0] * 3)
    clips = VideoDataset(videos, ClipSampler(4, step=2), SALTTransform(32), seed, max_attempts=3)
    for step, (keys,) in enumerate(
        zip(StepBatchSampler(3, CLIPS, CLIPS, STEPS, seed), strict=True)
    ):
        masks.index_lists(step, range(CLIPS))
        for key in keys:
            with pytest.raises(DataError):
                clips[key]
    # A step has two mask sets, each with a stream of the step and one of each of its two groups,
    # of which the first is asked for by each group; clips are tried three times; orders last three.
    assert len(drawn) == STEPS * (2 * 2 * 2 + CLIPS * 3) + 4
    assert len(set(drawn)) == STEPS * (2 * 3 + CLIPS * 3) + 4
