from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from salt_plugin.data import VideoReadError
from salt_plugin.evaluation.controls import frame_orders, frozen_frame, permuted, shuffled
from salt_plugin.evaluation.metadata import metadata
from salt_plugin.evaluation.results import accuracy_interval


def test_shuffling_reorders_the_frames_of_each_video_alike_in_all_views() -> None:
    clips = torch.randn(5, 2, 3, 8, 4, 4)
    order_bt = frame_orders(videos=5, frames=8, seed=1)
    found = shuffled(clips, order_bt)
    for b in range(5):
        assert torch.equal(found[b], clips[b][:, :, order_bt[b]])
    assert not torch.equal(found, clips)
    assert order_bt.sort(1).values.tolist() == [list(range(8))] * 5


def test_frozen_clips_repeat_their_middle_frame() -> None:
    clips = torch.randn(2, 1, 3, 4, 2, 2)
    found = frozen_frame(clips)
    assert found.shape == clips.shape
    for t in range(4):
        assert torch.equal(found[:, :, :, t], clips[:, :, :, 2])


def test_permuted_labels_are_the_same_labels() -> None:
    labels = torch.arange(50) % 5
    found = permuted(labels, seed=0)
    assert found.bincount().tolist() == labels.bincount().tolist()
    assert not torch.equal(found, labels)
    assert torch.equal(found, permuted(labels, seed=0))


def test_metadata_are_those_of_the_header(labelled: Path) -> None:
    file = labelled / "test0.mp4"
    found = metadata([str(file)])[0]
    np.testing.assert_allclose(found, [file.stat().st_size, 8, 10, 64, 32, 1.25])


def test_a_file_without_a_header_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(VideoReadError, match=r"bad\.mp4: no video header"):
        metadata([str(tmp_path / "bad.mp4")])


def test_an_interval_is_that_of_the_binomial_where_videos_are_independent() -> None:
    correct = torch.arange(400) < 300
    low, high = accuracy_interval(correct, seed=0)
    width = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - width, abs=0.006)
    assert high == pytest.approx(0.75 + width, abs=0.006)
    assert accuracy_interval(correct, seed=0) == (low, high)


def test_an_interval_draws_whole_groups() -> None:
    # Ten videos of a group are right or wrong together: the interval is that of 40 videos.
    alone = torch.arange(40) < 30
    together = alone.repeat_interleave(10)
    groups = torch.arange(40).repeat_interleave(10)
    assert accuracy_interval(together, groups) == pytest.approx(accuracy_interval(alone))
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    names = 7 * groups[shuffled] + 3
    assert accuracy_interval(together[shuffled], names) == accuracy_interval(together, groups)


def test_an_interval_agrees_with_drawing_groups_one_by_one() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    correct = rng.random(len(groups)) < 0.6
    draws = []
    for _ in range(4000):
        taken = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 12, 12)])
        draws.append(correct[taken].mean())
    slow = np.quantile(draws, [0.025, 0.975])
    fast = accuracy_interval(torch.from_numpy(correct), torch.from_numpy(groups))
    np.testing.assert_allclose(fast, slow, atol=0.02)


@pytest.mark.parametrize("right", [True, False])
def test_an_interval_of_no_doubt_has_no_width(right: bool) -> None:
    assert accuracy_interval(torch.full((10,), right)) == (float(right), float(right))


def test_an_interval_of_a_single_group_has_no_width() -> None:
    assert accuracy_interval(torch.arange(4) < 3, torch.zeros(4)) == (0.75, 0.75)
