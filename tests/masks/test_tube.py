from __future__ import annotations

import pytest
import torch
from drawn import draw

from salt_plugin.errors import ConfigError
from salt_plugin.masks import TubeMasks

GRID = (8, 14, 14)


@pytest.mark.parametrize(("ratio", "masked"), [(0.9, 176), (0.5, 98), (0.25, 49)])
def test_every_frame_hides_the_same_share_of_places(ratio: float, masked: int) -> None:
    for mask in draw(TubeMasks(ratio), 4, GRID):
        assert mask.target.shape == (4, 8 * masked)
        assert mask.context.shape == (4, 8 * (196 - masked))
        for b in range(4):
            hidden = {n for n in mask.target[b].tolist() if n < 196}
            assert len(hidden) == masked
            assert mask.target[b].tolist() == [n for n in range(1568) if n % 196 in hidden]
            assert mask.context[b].tolist() == [n for n in range(1568) if n % 196 not in hidden]


def test_sets_and_clips_are_independent() -> None:
    masks = draw(TubeMasks(num_sets=3), 4, GRID)
    assert len(masks) == 3
    assert len({tuple(row.tolist()) for mask in masks for row in mask.target}) == 12


def test_every_place_is_hidden_equally_often() -> None:
    counts = torch.zeros(196)
    for mask in draw(TubeMasks(0.5, num_sets=1), 4000, (1, 14, 14)):
        for row in mask.target:
            counts[row] += 1
    assert (counts / 4000 - 0.5).abs().max() < 5 * (0.25 / 4000) ** 0.5


@pytest.mark.parametrize(("ratio", "num_sets"), [(0.0, 1), (1.0, 1), (-0.5, 1), (0.9, 0)])
def test_bad_numbers(ratio: float, num_sets: int) -> None:
    with pytest.raises(ConfigError, match=rf"method\.masks: ratio={ratio}, num_sets={num_sets};"):
        TubeMasks(ratio, num_sets)


@pytest.mark.parametrize(("ratio", "masked"), [(0.9, 4), (0.1, 0)])
def test_grid_too_small(ratio: float, masked: int) -> None:
    message = rf"method\.masks\.ratio={ratio} masks {masked} of 4 places; use larger clips"
    with pytest.raises(ConfigError, match=message):
        draw(TubeMasks(ratio), 1, (8, 2, 2))
