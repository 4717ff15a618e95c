from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from salt_plugin.masks import Batch, MaskCollator, MaskSet, MultiBlockMasks, TubeMasks

GRID = (2, 6, 6)


class Key(NamedTuple):
    step: int


class Item(NamedTuple):
    clip: torch.Tensor
    label: int
    key: Key
    path: str
    skipped: list[tuple[str, str]]


class Clips(Dataset):
    """Three clips a step; the first of each step met a broken file."""

    def __len__(self) -> int:
        return 18

    def __getitem__(self, index: int) -> Item:
        step, slot = divmod(index, 3)
        skipped = [(f"{step}.mp4", "empty")] if slot == 0 else []
        clip = torch.full((3, 4, 24, 24), float(index))
        return Item(clip, slot - 1, Key(step), f"{index}.mp4", skipped)


def _batches(num_workers: int, seed: int = 5, rank: int = 0) -> list[Batch]:
    torch.manual_seed(num_workers)  # whatever else is drawn must not matter
    collate = MaskCollator(MultiBlockMasks(), GRID, seed, rank)
    return list(DataLoader(Clips(), 3, num_workers=num_workers, collate_fn=collate))


def _drawn(seed: int, step: int, rank: int) -> tuple[int, ...]:
    items = [Item(torch.zeros(1), 0, Key(step), "a.mp4", [])] * 2
    (mask,) = MaskCollator(TubeMasks(0.5, 1), (1, 14, 14), seed, rank)(items).masks
    return tuple(mask.target.flatten().tolist())


def test_a_batch_holds_its_samples() -> None:
    for step, batch in enumerate(_batches(num_workers=0)):
        assert batch.step == step
        assert batch.clips.shape == (3, 3, 4, 24, 24)
        assert batch.clips[:, 0, 0, 0, 0].tolist() == [3 * step, 3 * step + 1, 3 * step + 2]
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [-1, 0, 1]
        assert batch.skipped == [(f"{step}.mp4", "empty")]
        assert batch.paths == [f"{3 * step + slot}.mp4" for slot in range(3)]
        assert [len(mask.context) for mask in batch.masks] == [3, 3]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_masks(num_workers: int) -> None:
    alone, shared = _batches(0), _batches(num_workers)
    assert len(alone) == len(shared) == 6
    for one, two in zip(alone, shared, strict=True):
        assert one.step == two.step
        for mine, theirs in zip(one.masks, two.masks, strict=True):
            assert torch.equal(mine.context, theirs.context)
            assert torch.equal(mine.target, theirs.target)


def test_masks_are_a_function_of_seed_step_and_rank() -> None:
    assert _drawn(1, 2, 3) == _drawn(1, 2, 3)
    drawn = [_drawn(s, t, r) for s in range(3) for t in range(4) for r in range(3)]
    assert len(set(drawn)) == 36


def test_going_on_from_a_step_draws_what_an_unbroken_run_would() -> None:
    unbroken = _batches(0)[4]
    items = [Clips()[index] for index in range(12, 15)]
    resumed = MaskCollator(MultiBlockMasks(), GRID, seed=5)(items)
    for mine, theirs in zip(unbroken.masks, resumed.masks, strict=True):
        assert torch.equal(mine.target, theirs.target)


def test_very_large_seeds_and_steps_work() -> None:
    assert _drawn(2**63, 0, 0) != _drawn(2**63 + 1, 0, 0)
    assert _drawn(0, 10**7, 0) != _drawn(0, 10**7 + 1, 0)


def test_a_batch_and_its_masks_move_between_devices() -> None:
    batch = _batches(num_workers=0)[0]
    moved = batch.to("meta", non_blocking=True)
    assert type(moved) is Batch
    assert all(type(mask) is MaskSet for mask in moved.masks)
    tensors = [moved.clips, moved.labels, *(index for mask in moved.masks for index in mask)]
    assert {str(tensor.device) for tensor in tensors} == {"meta"}
    assert moved.masks[1].target.shape == batch.masks[1].target.shape
    assert (moved.step, moved.skipped, moved.paths) == (batch.step, batch.skipped, batch.paths)
    assert torch.equal(batch.to(torch.device("cpu")).clips, batch.clips)
