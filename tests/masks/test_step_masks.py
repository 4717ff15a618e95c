from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from salt_plugin.errors import ConfigError
from salt_plugin.masks import (
    BlockSpec,
    IndexLists,
    MaskGenerator,
    MultiBlockMasks,
    StepMasks,
    TubeMasks,
    split,
)
from salt_plugin.shapes import Grid, Tokens

GRID = (2, 6, 6)
SPLITS = pytest.mark.parametrize(
    ("clips", "group"), [(1, 24), (4, 4), (5, 4), (7, 1), (13, 4), (26, 24)]
)
Rows = dict[tuple[int, int], tuple[list[int], list[int]]]


class Noted(MultiBlockMasks):
    """Keeps what was hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[np.ndarray] = []

    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        self.noted.append(super().hidden(number, clips, grid, of_step, of_group))
        return self.noted[-1].copy()


class FrameByFrame(MaskGenerator):
    """Hides other places in each frame."""

    num_sets = 2

    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        return of_group.random((clips, int(np.prod(grid)))) < of_step.uniform(0.3, 0.7)


class Streams(MaskGenerator):
    """Keeps a number of each generator that it is given; hides the first place."""

    num_sets = 2

    def __init__(self) -> None:
        self.of_steps: dict[int, set[float]] = {0: set(), 1: set()}
        self.of_groups: list[float] = []

    def hidden(
        self,
        number: int,
        clips: int,
        grid: Grid,
        of_step: np.random.Generator,
        of_group: np.random.Generator,
    ) -> np.ndarray:
        self.of_steps[number].add(of_step.random())
        self.of_groups.append(of_group.random())
        return np.arange(grid[1] * grid[2])[None].repeat(clips, axis=0) == 0


def _rows(lists: list[IndexLists], start: int) -> Rows:
    """Context and target of each slot and mask set."""
    return {
        (start + one.first + row, one.number): (one.context[row].tolist(), one.target[row].tolist())
        for one in lists
        for row in range(len(one.context))
    }


@pytest.mark.parametrize("masks", [MultiBlockMasks(), TubeMasks(), FrameByFrame()])
@SPLITS
def test_masks_of_a_slot_do_not_depend_on_who_asks(
    masks: MaskGenerator, clips: int, group: int
) -> None:
    drawn = StepMasks(masks, GRID, 3, clips, group)
    whole = _rows(drawn.index_lists(7, range(clips)), 0)
    assert list(whole) == [
        (slot, number) for slots in drawn.groups for number in range(2) for slot in slots
    ]
    for start, stop in combinations(range(clips + 1), 2):
        part = _rows(drawn.index_lists(7, range(start, stop)), start)
        assert part == {key: rows for key, rows in whole.items() if start <= key[0] < stop}


@pytest.mark.parametrize("clips", range(1, 30))
@pytest.mark.parametrize("group", [1, 4, 24])
def test_groups_are_as_equal_as_they_can_be_and_larger_ones_first(clips: int, group: int) -> None:
    groups = StepMasks(TubeMasks(), GRID, 0, clips, group).groups
    assert [slot for slots in groups for slot in slots] == list(range(clips))
    sizes = [len(slots) for slots in groups]
    assert len(sizes) == -(-clips // group)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
    assert sizes[0] <= group


@SPLITS
def test_each_set_of_a_group_is_cut_to_its_shortest_and_no_further(clips: int, group: int) -> None:
    masks = Noted()
    drawn = StepMasks(masks, GRID, 0, clips, group)
    for step in range(5):
        masks.noted.clear()
        found = drawn.index_lists(step, range(clips))
        assert len(found) == len(masks.noted) == 2 * len(drawn.groups)
        for one, hidden in zip(found, masks.noted, strict=True):
            contexts = [[t for t in range(72) if not row[t % 36]] for row in hidden]
            targets = [[t for t in range(72) if row[t % 36]] for row in hidden]
            for lists, plain in ((one.context, contexts), (one.target, targets)):
                assert lists.dtype == np.int64
                assert lists.tolist() == [row[: min(map(len, plain))] for row in plain]


@pytest.mark.parametrize("masks", [MultiBlockMasks(), TubeMasks(), FrameByFrame()])
@SPLITS
def test_lengths_are_those_of_the_index_lists(masks: MaskGenerator, clips: int, group: int) -> None:
    drawn = StepMasks(masks, GRID, 0, clips, group)
    for step in range(5):
        lengths = drawn.lengths(step)
        assert [one.clips for one in lengths] == [len(slots) for slots in drawn.groups]
        lists = drawn.index_lists(step, range(clips))
        assert [tokens for one in lengths for tokens in one.masks] == [
            Tokens(one.context.shape[1], one.target.shape[1]) for one in lists
        ]
        assert drawn.lengths(step, first_groups=1) == lengths[:1]


def test_masks_may_differ_from_frame_to_frame() -> None:
    found = StepMasks(FrameByFrame(), GRID, 0, clips=5, group=3).index_lists(0, range(5))
    assert len(found) == 4
    for one in found:
        for context, target in zip(one.context.tolist(), one.target.tolist(), strict=True):
            assert context == sorted(set(context))
            assert target == sorted(set(target))
            assert not set(context) & set(target)
            assert set(context) | set(target) <= set(range(72))
            frames = [{t % 36 for t in target if t // 36 == frame} for frame in range(2)]
            assert frames[0] != frames[1]


def test_block_sizes_are_shared_by_groups_but_not_by_steps_or_sets() -> None:
    masks = MultiBlockMasks(BlockSpec(1, 0.4), BlockSpec(1, 0.4))
    drawn = StepMasks(masks, (1, 14, 14), 0, clips=9, group=2)
    sizes: list[list[tuple[int, int]]] = []
    for step in range(20):
        of_sets: list[set[tuple[int, int]]] = [set(), set()]
        for one in drawn.index_lists(step, range(9)):
            for target in one.target:
                ys, xs = target // 14, target % 14
                of_sets[one.number].add((int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1))
        assert [len(found) for found in of_sets] == [1, 1]
        sizes.append([found.pop() for found in of_sets])
    assert any(first != second for first, second in sizes)
    assert all(len({step[number] for step in sizes}) > 3 for number in range(2))


def test_every_seed_step_set_and_group_has_numbers_of_its_own() -> None:
    seeds, steps, groups = (0, 1, 2**32, 2**63, 2**63 + 1, 2**64 - 1), (0, 1, 2, 10**7), 3
    seen = []
    for seed in seeds:
        for step in steps:
            masks = Streams()
            StepMasks(masks, GRID, seed, clips=groups, group=1).lengths(step)
            assert [len(masks.of_steps[number]) for number in range(2)] == [1, 1]
            seen += [*masks.of_steps[0], *masks.of_steps[1], *masks.of_groups]
    assert len(seen) == len(seeds) * len(steps) * 2 * (1 + groups)
    assert len(set(seen)) == len(seen)


def test_nothing_else_that_is_random_matters() -> None:
    def drawn() -> Rows:
        return _rows(StepMasks(MultiBlockMasks(), GRID, 7, 5, 2).index_lists(3, range(5)), 0)

    np.random.seed(1)
    first = drawn()
    np.random.seed(2)
    assert drawn() == first


@pytest.mark.parametrize(
    ("clips", "group", "key"), [(0, 4, "global_batch_size"), (4, 0, "mask_group")]
)
def test_bad_numbers(clips: int, group: int, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^method\.{key}=0: expected at least 1"):
        StepMasks(TubeMasks(), GRID, 0, clips, group)


def test_parts_of_consecutive_slots() -> None:
    assert split(range(3, 11), 3) == [range(3, 6), range(6, 9), range(9, 11)]
    assert split(range(2), 2) == [range(1), range(1, 2)]


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (np.ones((3, 4), bool), r"mask set 0 hides all of a clip; expected something to see"),
        (np.zeros((3, 4), bool), r"mask set 0 hides nothing of a clip"),
        (np.ones((2, 4), bool), r"is bool \[2, 4\]; expected bool \[3, 8\], or \[3, 4\]"),
        (np.ones((3, 8)), r"is float64 \[3, 8\]; expected bool"),
    ],
)
def test_masks_that_cannot_be_trained_under_are_named(hidden: np.ndarray, message: str) -> None:
    class Bad(MaskGenerator):
        num_sets = 1

        def hidden(self, *_: object) -> np.ndarray:
            return hidden

    masks = StepMasks(Bad(), (2, 2, 2), seed=0, clips=3, group=3)
    with pytest.raises(ConfigError, match=message):
        masks.lengths(0)
    with pytest.raises(ConfigError, match=message):
        masks.index_lists(0, range(3))
