from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from salt_plugin.batch import Batch, MaskCollator, MaskSet
from salt_plugin.masks import MultiBlockMasks

GRID = (2, 6, 6)


class Key(NamedTuple):
    step: int
    slot: int


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
        return Item(clip, slot - 1, Key(step, slot), f"{index}.mp4", skipped)


def _batches(num_workers: int) -> list[Batch]:
    torch.manual_seed(num_workers)  # whatever else is drawn must not matter
    collate = MaskCollator(MultiBlockMasks(), GRID, seed=5, group=2)
    return list(DataLoader(Clips(), 3, num_workers=num_workers, collate_fn=collate))


def test_a_batch_holds_its_samples() -> None:
    for step, batch in enumerate(_batches(num_workers=0)):
        assert batch.step == step
        assert batch.clips.shape == (3, 3, 4, 24, 24)
        assert batch.clips[:, 0, 0, 0, 0].tolist() == [3 * step, 3 * step + 1, 3 * step + 2]
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [-1, 0, 1]
        assert batch.skipped == [(f"{step}.mp4", "empty")]
        assert batch.paths == [f"{3 * step + slot}.mp4" for slot in range(3)]
        assert [mask.number for mask in batch.masks] == [0, 1, 0, 1]
        assert [mask.clips for mask in batch.masks] == [slice(0, 2)] * 2 + [slice(2, 3)] * 2
        assert [len(mask.context) for mask in batch.masks] == [2, 2, 1, 1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_masks(num_workers: int) -> None:
    alone, shared = _batches(0), _batches(num_workers)
    assert len(alone) == len(shared) == 6
    for one, two in zip(alone, shared, strict=True):
        assert one.step == two.step
        for mine, theirs in zip(one.masks, two.masks, strict=True):
            assert torch.equal(mine.context, theirs.context)
            assert torch.equal(mine.target, theirs.target)


def test_micro_batches_have_the_masks_of_their_slots() -> None:
    items = [Clips()[index] for index in range(3)]
    whole = MaskCollator(MultiBlockMasks(), GRID, seed=5, group=2)(items)
    collate = MaskCollator(MultiBlockMasks(), GRID, seed=5, group=2, clips=3)
    first, last = collate(items[:1]), collate(items[1:])
    for number in range(2):
        assert torch.equal(first.masks[number].target, whole.masks[number].target[:1])
        assert torch.equal(last.masks[number].context, whole.masks[number].context[1:])
        assert torch.equal(last.masks[2 + number].context, whole.masks[2 + number].context)
    assert [mask.first for mask in last.masks] == [0, 0, 1, 1]


def test_going_on_from_a_step_draws_what_an_unbroken_run_would() -> None:
    unbroken = _batches(0)[4]
    items = [Clips()[index] for index in range(12, 15)]
    resumed = MaskCollator(MultiBlockMasks(), GRID, seed=5, group=2)(items)
    for mine, theirs in zip(unbroken.masks, resumed.masks, strict=True):
        assert torch.equal(mine.target, theirs.target)


def test_a_batch_and_its_masks_move_between_devices() -> None:
    batch = _batches(num_workers=0)[0]
    moved = batch.to("meta", non_blocking=True)
    assert type(moved) is Batch
    assert all(type(mask) is MaskSet for mask in moved.masks)
    tensors = [moved.clips, moved.labels, *(index for mask in moved.masks for index in mask[:2])]
    assert {str(tensor.device) for tensor in tensors} == {"meta"}
    assert moved.masks[3].target.shape == batch.masks[3].target.shape
    assert moved.masks[3][2:] == batch.masks[3][2:] == (1, 2)
    assert (moved.step, moved.skipped, moved.paths) == (batch.step, batch.skipped, batch.paths)
    assert torch.equal(batch.to(torch.device("cpu")).clips, batch.clips)
