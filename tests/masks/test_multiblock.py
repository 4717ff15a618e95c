from __future__ import annotations

import math
import random

import pytest
import torch
from drawn import draw
from torch import Tensor

from salt_plugin.batch import MaskSet
from salt_plugin.errors import ConfigError
from salt_plugin.masks import BlockSpec, MultiBlockMasks, StepMasks

# Sixteen frames of 224x224 in tubelets of 2x16x16.
GRID = (8, 14, 14)
ODD_GRID = (3, 5, 9)
SPECS = ((8, 0.15), (2, 0.7))


def _plain_vjepa(
    rng: random.Random, batch_size: int, grid: tuple[int, int, int], num_blocks: int, scale: float
) -> tuple[list[list[int]], list[list[int]]]:
    """One mask set of a batch as the paper card tells it: clip by clip, token by token."""
    frames, height, width = grid
    aspect = rng.uniform(0.75, 1.5)
    area = int(height * width * scale)
    rows = min(height, round(math.sqrt(area * aspect)))
    cols = min(width, round(math.sqrt(area / aspect)))
    contexts, targets = [], []
    while len(contexts) < batch_size:
        hidden = set()
        for _ in range(num_blocks):
            top, left = rng.randint(0, height - rows), rng.randint(0, width - cols)
            for y in range(top, top + rows):
                hidden.update(y * width + x for x in range(left, left + cols))
        if len(hidden) == height * width:
            continue
        tokens = range(frames * height * width)
        contexts.append([n for n in tokens if n % (height * width) not in hidden])
        targets.append([n for n in tokens if n % (height * width) in hidden])
    context_length = min(len(context) for context in contexts)
    target_length = min(len(target) for target in targets)
    return (
        [context[:context_length] for context in contexts],
        [target[:target_length] for target in targets],
    )


def _hidden_places(mask: MaskSet, clip: int, places: int) -> set[int]:
    return {n for n in mask.target[clip].tolist() if n < places}


@pytest.mark.parametrize("grid", [GRID, ODD_GRID, (8, 7, 7), (8, 4, 4)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_lists_are_the_complement_and_the_union_cut_from_the_end(
    grid: tuple[int, int, int], batch_size: int
) -> None:
    places, tokens = grid[1] * grid[2], grid[0] * grid[1] * grid[2]
    checked = 0
    for seed in range(20):
        masks = draw(MultiBlockMasks(), batch_size, grid, seed)
        assert len(masks) == 2
        for mask in masks:
            contexts, targets = [], []
            for b in range(batch_size):
                hidden = _hidden_places(mask, b, places)
                seen = {n for n in mask.context[b].tolist() if n < places}
                assert not hidden & seen
                if hidden | seen != set(range(places)):
                    break  # the first frame was cut, which only small grids do
                contexts.append([n for n in range(tokens) if n % places not in hidden])
                targets.append([n for n in range(tokens) if n % places in hidden])
            else:
                shortest_context, shortest_target = min(map(len, contexts)), min(map(len, targets))
                assert mask.context.tolist() == [c[:shortest_context] for c in contexts]
                assert mask.target.tolist() == [t[:shortest_target] for t in targets]
                if batch_size == 1:
                    assert shortest_context + shortest_target == tokens
                checked += 1
    assert checked > 20


@pytest.mark.parametrize("batch_size", [1, 24])
def test_lists_are_never_empty_and_ascend(batch_size: int) -> None:
    for seed in range(20):
        for mask in draw(MultiBlockMasks(), batch_size, GRID, seed):
            for indices in mask[:2]:
                assert indices.dtype == torch.int64
                assert indices.shape[0] == batch_size
                assert indices.shape[1] > 0
                assert (indices.diff(dim=1) > 0).all()
                assert indices.min() >= 0
                assert indices.max() < 1568


def _single_blocks(scale: float, count: int) -> list[tuple[int, int, int, int]]:
    """(top, left, rows, columns) of sets that are one block, checked to be full rectangles."""
    masks = MultiBlockMasks(BlockSpec(1, scale), BlockSpec(1, scale))
    found = []
    for seed in range(count):
        mask = draw(masks, 1, GRID, seed)[0]
        hidden = _hidden_places(mask, 0, 196)
        ys, xs = {n // 14 for n in hidden}, {n % 14 for n in hidden}
        rows, cols = max(ys) - min(ys) + 1, max(xs) - min(xs) + 1
        assert len(hidden) == rows * cols
        found.append((min(ys), min(xs), rows, cols))
    return found


@pytest.mark.parametrize(("scale", "area"), [(0.15, 29), (0.7, 137)])
def test_a_block_has_its_share_of_the_area_and_an_aspect_in_range(scale: float, area: int) -> None:
    blocks = _single_blocks(scale, 3000)
    sizes = {(rows, cols) for _, _, rows, cols in blocks}
    # Uniform in [0.75, 1.5]; sides are rounded to tokens and cut at the edge of the clip.
    step = [0.75 + 0.75 * i / 10_000 for i in range(10_001)]
    allowed = {
        (min(14, round(math.sqrt(area * a))), min(14, round(math.sqrt(area / a)))) for a in step
    }
    assert sizes == allowed
    uniform = [
        (min(14, round(math.sqrt(area * a))), min(14, round(math.sqrt(area / a)))) for a in step
    ]
    for size in allowed:
        share = sum((rows, cols) == size for _, _, rows, cols in blocks) / len(blocks)
        assert share == pytest.approx(uniform.count(size) / len(step), abs=0.08)


def test_blocks_lie_anywhere_inside_with_equal_chance() -> None:
    blocks = _single_blocks(0.15, 3000)
    size = max({block[2:] for block in blocks}, key=[block[2:] for block in blocks].count)
    mine = [block[:2] for block in blocks if block[2:] == size]
    last_top, last_left = 14 - size[0], 14 - size[1]
    for axis, last in enumerate((last_top, last_left)):
        counts = [sum(place[axis] == i for place in mine) for i in range(last + 1)]
        assert sum(counts) == len(mine)
        expected = len(mine) / (last + 1)
        chi_squared = sum((count - expected) ** 2 / expected for count in counts)
        assert chi_squared < last + 5 * math.sqrt(2 * last)


def test_one_block_size_a_group_but_places_of_their_own_for_each_clip() -> None:
    masks = MultiBlockMasks(BlockSpec(1, 0.15), BlockSpec(1, 0.7))
    for seed in range(10):
        for mask in draw(masks, 6, GRID, seed):
            hidden = [_hidden_places(mask, b, 196) for b in range(6)]
            assert len({len(places) for places in hidden}) == 1
            assert len({frozenset(places) for places in hidden}) > 1


def _mean_lengths(draws: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor(draws, dtype=torch.float64) / 1568
    return lengths.mean(0), lengths.std(0) / math.sqrt(len(draws))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("batch_size", "draws"), [(1, 1500), (4, 400), (24, 100)])
def test_lengths_agree_with_the_plain_loop(which: int, batch_size: int, draws: int) -> None:
    masks, rng = MultiBlockMasks(), random.Random(0)
    ours, plain = [], []
    for step in range(draws):
        mask = draw(masks, batch_size, GRID, step=step)[which]
        ours.append((mask.context.shape[1], mask.target.shape[1]))
        contexts, targets = _plain_vjepa(rng, batch_size, GRID, *SPECS[which])
        plain.append((len(contexts[0]), len(targets[0])))
    mean, error = _mean_lengths(ours)
    plain_mean, plain_error = _mean_lengths(plain)
    assert ((mean - plain_mean).abs() < 4 * (error**2 + plain_error**2).sqrt()).all()


def test_every_place_is_hidden_as_often_as_by_the_plain_loop() -> None:
    masks, rng = MultiBlockMasks(), random.Random(1)
    draws, ours, plain = 2000, torch.zeros(196), torch.zeros(196)
    for step in range(draws):
        ours[list(_hidden_places(draw(masks, 1, (1, 14, 14), step=step)[0], 0, 196))] += 1
        plain[_plain_vjepa(rng, 1, (1, 14, 14), *SPECS[0])[1][0]] += 1
    # Five standard deviations of the difference of two shares.
    assert ((ours - plain).abs() / draws).max() < 5 * math.sqrt(2 * 0.25 / draws)


@pytest.mark.parametrize(
    ("batch_size", "draws", "short_range", "long_range"),
    [(1, 2000, 0.375, 0.19), (4, 1000, 0.30, 0.11), (24, 400, 0.23, 0.07)],
)
def test_share_that_the_encoder_keeps_is_that_of_vjepas_collator(
    batch_size: int, draws: int, short_range: float, long_range: float
) -> None:
    masks = StepMasks(MultiBlockMasks(), GRID, seed=0, clips=batch_size, group=batch_size)
    kept = [
        [tokens.context / 1568 for tokens in masks.lengths(step)[0].masks] for step in range(draws)
    ]
    means = torch.tensor(kept).mean(0).tolist()
    assert means == pytest.approx([short_range, long_range], abs=0.01)


def test_nodes_of_a_config_do_as_well_as_specs() -> None:
    from_dict = MultiBlockMasks({"num_blocks": 3, "scale": 0.2}, {"num_blocks": 1, "scale": 0.5})
    from_spec = MultiBlockMasks(BlockSpec(3, 0.2), BlockSpec(1, 0.5))
    for one, two in zip(draw(from_dict, 2, GRID), draw(from_spec, 2, GRID), strict=True):
        assert torch.equal(one.target, two.target)
    assert from_dict == from_spec != MultiBlockMasks()
    assert len({from_dict, from_spec}) == 1


@pytest.mark.parametrize("key", ["short_range", "long_range"])
@pytest.mark.parametrize(("num_blocks", "scale"), [(0, 0.5), (2, 0.0), (2, 1.0), (2, -0.1)])
def test_bad_blocks(key: str, num_blocks: int, scale: float) -> None:
    message = rf"method\.masks\.{key}=.*: num_blocks={num_blocks}, scale={scale}; need"
    with pytest.raises(ConfigError, match=message):
        MultiBlockMasks(**{key: {"num_blocks": num_blocks, "scale": scale}})


@pytest.mark.parametrize(("keep", "seen"), [(0.5, 4), (0.3, 2), (0.01, 1), (1.0, 8)])
def test_causal_masks_hide_late_frames_and_nothing_else_that_is_not_hidden_anyway(
    keep: float, seen: int
) -> None:
    area = GRID[1] * GRID[2]
    causal = StepMasks(MultiBlockMasks(max_temporal_keep=keep), GRID, 3, clips=1, group=1)
    plain = StepMasks(MultiBlockMasks(), GRID, 3, clips=1, group=1)
    for step in range(5):
        lists = causal.index_lists(step, range(1)), plain.index_lists(step, range(1))
        for one, other in zip(*lists, strict=True):
            context = other.context[0][other.context[0] < seen * area]
            assert one.context[0].tolist() == context.tolist()
            hidden = {*other.target[0].tolist(), *range(seen * area, GRID[0] * area)}
            assert one.target[0].tolist() == sorted(hidden)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5])
def test_bad_share_of_frames(keep: float) -> None:
    with pytest.raises(ConfigError, match=rf"max_temporal_keep={keep}: need more than 0"):
        MultiBlockMasks(max_temporal_keep=keep)


@pytest.mark.parametrize("aspect_ratio", [(0.0, 1.0), (-1.0, 1.0), (1.5, 0.75)])
def test_bad_aspect_ratio(aspect_ratio: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"method\.masks\.aspect_ratio=\[.*0 < lowest <= highest"):
        MultiBlockMasks(aspect_ratio=aspect_ratio)


def test_blocks_that_leave_nothing_to_see() -> None:
    masks = MultiBlockMasks(long_range=BlockSpec(2, 0.99))
    with pytest.raises(ConfigError, match=r"2 blocks of 2x2 tokens leave no context on a grid"):
        draw(masks, 2, (4, 2, 2))
