"""Random token dropping, and masks on the grids of several views."""

from __future__ import annotations

import numpy as np
import pytest

from salt_plugin.errors import ConfigError
from salt_plugin.masks import StepMasks, TokenDropping

GRID = (16, 14, 14)


def test_the_printed_views_keep_the_printed_tokens() -> None:
    masks = StepMasks(TokenDropping(local_views=10), GRID, seed=0, clips=50, group=24)
    for group in masks.lengths(step=3):
        assert [tuple(tokens) for tokens in group.masks] == [(157, 0)] + 10 * [(29, 0)]
    lists = masks.index_lists(step=3, slots=range(50))
    assert [one.context.shape for one in lists[:2]] == [(17, 157), (17, 29)]
    assert all(one.target.shape == (len(one.context), 0) for one in lists)
    for one in lists:
        tokens = 16 * 14 * 14 if one.number == 0 else 16 * 6 * 6
        assert one.context.min() >= 0
        assert one.context.max() < tokens
        assert (np.diff(one.context, axis=1) > 0).all()
    rows = [tuple(row) for one in lists for row in one.context]
    assert len(set(rows)) == len(rows) == 50 * 11


def test_tokens_are_functions_of_seed_step_and_slot() -> None:
    masks = StepMasks(TokenDropping(local_views=2), GRID, seed=0, clips=8, group=3)
    whole = {(one.number, one.first): one.context for one in masks.index_lists(1, range(8))}
    by_slot = {
        (number, first + row): tuple(context[row])
        for (number, first), context in whole.items()
        for row in range(len(context))
    }
    for slots in (range(3), range(3, 5), range(5, 8)):
        for one in masks.index_lists(1, slots):
            for row, context in enumerate(one.context):
                assert by_slot[one.number, slots.start + one.first + row] == tuple(context)
    for other in (
        masks.index_lists(2, range(8)),
        StepMasks(TokenDropping(local_views=2), GRID, 1, 8, 3).index_lists(1, range(8)),
    ):
        assert not np.array_equal(other[0].context, whole[0, 0])


def test_every_token_is_dropped_equally_often() -> None:
    masks = StepMasks(TokenDropping(drop=0.75), (2, 4, 4), seed=0, clips=4000, group=4000)
    (one,) = masks.index_lists(0, range(4000))
    counts = np.bincount(one.context.ravel(), minlength=32)
    assert np.abs(counts / 4000 - 0.25).max() < 5 * (0.1875 / 4000) ** 0.5


def test_what_can_be_asked_for() -> None:
    everything = TokenDropping(drop=0.0)
    assert everything.counts(0, (2, 3, 4)) == (24, 0)
    assert not everything.hidden(
        0, 2, (2, 3, 4), np.random.default_rng(0), np.random.default_rng(0)
    ).any()
    assert TokenDropping(drop=0.99).counts(0, (1, 2, 2)) == (1, 0)
    assert TokenDropping(local_views=1, local_size=64).grid(1, GRID) == (16, 4, 4)
    assert TokenDropping(local_views=1).grid(1, (8, 4, 4)) == (8, 2, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"drop": 1.0}, r"method\.masks\.drop=1\.0: expected a share"),
        ({"drop": -0.1}, r"method\.masks\.drop=-0\.1"),
        ({"local_views": -1}, r"method\.masks\.local_views=-1: expected 0 or more"),
        ({"local_size": 100}, r"method\.masks\.local_size=100: expected a multiple of .* 16"),
    ],
)
def test_bad_numbers(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenDropping(**given)
