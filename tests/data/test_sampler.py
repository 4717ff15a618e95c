from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from salt_plugin.data.sampler import SampleKey, StepBatchSampler, micro_batches
from salt_plugin.errors import ConfigError, DataError

MIXED = {"source": [0] * 10 + [1] * 30 + [2] * 60, "weights": [6.0, 3.0, 1.0]}
BOTH = pytest.mark.parametrize("extra", [{}, MIXED], ids=["epochs", "weights"])


def _indices(sampler: StepBatchSampler) -> list[int]:
    return [key.index for batch in sampler for key in batch]


def test_epochs_are_permutations_and_batches_run_across_them() -> None:
    sampler = StepBatchSampler(num_samples=10, clips=4, batch_size=4, total_steps=5, seed=0)
    indices = _indices(sampler)
    assert len(sampler) == 5
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:] != list(range(10))


def test_keys_carry_step_and_slot() -> None:
    first = next(iter(StepBatchSampler(9, 4, 2, 3, seed=0, start_step=1, rank=1, world_size=2)))
    assert [(key.step, key.slot) for key in first] == [(1, 2), (1, 3)]
    assert isinstance(first[0], SampleKey)


@BOTH
def test_same_seed_same_stream_other_seed_other_stream(extra: dict) -> None:
    def stream(seed: int) -> list[int]:
        return _indices(StepBatchSampler(100, 8, 8, 20, seed=seed, **extra))

    assert stream(3) == stream(3)
    assert stream(3) != stream(4)


@BOTH
def test_resume_continues_the_stream(extra: dict) -> None:
    whole = list(StepBatchSampler(100, 8, 8, 30, seed=1, **extra))
    assert list(StepBatchSampler(100, 8, 8, 30, seed=1, start_step=17, **extra)) == whole[17:]
    assert list(StepBatchSampler(100, 8, 8, 30, seed=1, start_step=30, **extra)) == []


@BOTH
def test_iterating_twice_gives_the_same(extra: dict) -> None:
    sampler = StepBatchSampler(100, 8, 8, 30, seed=1, **extra)
    assert list(islice(sampler, 20)) == list(sampler)[:20]


@BOTH
@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_split_of_steps_does_not_change_the_stream(
    extra: dict, batch_size: int, devices: int
) -> None:
    steps = 25
    whole = [
        key for batch in StepBatchSampler(100, 13, 13, steps, seed=1, **extra) for key in batch
    ]
    assert [(key.step, key.slot) for key in whole] == [(n // 13, n % 13) for n in range(25 * 13)]
    found = []
    for rank in range(devices):
        sampler = StepBatchSampler(
            100, 13, batch_size, steps, seed=1, rank=rank, world_size=devices, **extra
        )
        batches = list(sampler)
        assert len(sampler) == len(batches)
        found += [key for batch in batches for key in batch]
    assert sorted(found) == whole


CASES = [
    (clips, devices, batch_size)
    for clips in range(1, 14)
    for devices in range(1, min(clips, 4) + 1)
    for batch_size in range(1, 6)
]


@pytest.mark.parametrize(("clips", "devices", "batch_size"), CASES)
def test_micro_batches_are_as_equal_as_they_can_be(
    clips: int, devices: int, batch_size: int
) -> None:
    parts = [micro_batches(clips, batch_size, rank, devices) for rank in range(devices)]
    assert [slot for part in parts for slots in part for slot in slots] == list(range(clips))
    own = [sum(map(len, part)) for part in parts]
    assert max(own) - min(own) <= 1
    for part, held in zip(parts, own, strict=True):
        sizes = [len(slots) for slots in part]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0
        if batch_size > 1:
            assert len(part) == -(-max(own) // batch_size)
        else:
            assert len(part) == held


def test_set_smaller_than_a_batch_wraps() -> None:
    indices = _indices(StepBatchSampler(3, clips=8, batch_size=8, total_steps=3, seed=0))
    assert np.bincount(indices).tolist() == [8, 8, 8]


def test_without_shuffle_in_order() -> None:
    sampler = StepBatchSampler(3, clips=2, batch_size=2, total_steps=3, seed=0, shuffle=False)
    assert _indices(sampler) == [0, 1, 2, 0, 1, 2]


def test_weights_set_the_share_of_each_source_and_videos_are_uniform_in_it() -> None:
    source = np.array(MIXED["source"])
    order = np.random.default_rng(0).permutation(100)
    shuffled = source[order]
    sampler = StepBatchSampler(
        100, 64, 64, 1000, seed=0, source=shuffled.tolist(), weights=MIXED["weights"]
    )
    counts = np.bincount(_indices(sampler), minlength=100)
    share = np.bincount(shuffled, weights=counts) / counts.sum()
    np.testing.assert_allclose(share, [0.6, 0.3, 0.1], atol=0.01)
    expected = (share / np.bincount(shuffled))[shuffled] * counts.sum()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert 58 < chi_squared < 143  # central 99.8 % for 97 degrees of freedom


def test_weight_zero_is_never_drawn() -> None:
    sampler = StepBatchSampler(4, 8, 8, 200, seed=0, source=[0, 1, 1, 2], weights=[0, 1, 0])
    assert set(_indices(sampler)) == {1, 2}


@pytest.mark.parametrize("weights", [[1.0], [1, 2, 3], [1, -1], [0, 0], [1, float("nan")]])
def test_bad_weights(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        StepBatchSampler(3, 2, 2, 2, seed=0, source=[0, 0, 1], weights=weights)


def test_bad_numbers() -> None:
    with pytest.raises(DataError, match="no videos"):
        StepBatchSampler(0, 2, 2, 2, seed=0)
    message = r"^method\.global_batch_size=2: expected at least the 3 devices"
    with pytest.raises(ConfigError, match=message):
        StepBatchSampler(3, 2, 2, 2, seed=0, world_size=3)
