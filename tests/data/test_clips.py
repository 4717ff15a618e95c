from __future__ import annotations

import numpy as np
import pytest

from salt_plugin.data.clips import ClipSampler
from salt_plugin.errors import ConfigError, DataError


def test_step_spaces_frames_evenly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        indices = ClipSampler(frames=4, step=3).indices(30, 25.0, rng)
        assert indices.dtype == np.int64
        assert (np.diff(indices) == 3).all()
        assert indices[0] >= 0
        assert indices[-1] < 30


@pytest.mark.parametrize("sampler", [ClipSampler(4, step=3), ClipSampler(4, fps=8.0)])
def test_random_start_is_uniform_over_all_valid_starts(sampler: ClipSampler) -> None:
    rng = np.random.default_rng(0)
    draws, valid = 10_000, 20 - 9
    starts = [sampler.indices(20, 24.0, rng)[0] for _ in range(draws)]
    counts = np.bincount(starts, minlength=valid)
    assert len(counts) == valid
    chi_squared = ((counts - draws / valid) ** 2 / (draws / valid)).sum()
    assert chi_squared < 29.6  # 0.1 % point of chi-squared with 10 degrees of freedom


def test_centred_clip() -> None:
    assert ClipSampler(4, step=2).indices(11, 25.0, None).tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(("video_fps", "fps"), [(30.0, 4.0), (29.97, 8.0), (10.0, 24.0), (25, 25)])
def test_fps_takes_the_nearest_frame_in_time(video_fps: float, fps: float) -> None:
    indices = ClipSampler(8, fps=fps).indices(500, video_fps, np.random.default_rng(1))
    times = np.arange(500) / video_fps
    for number, index in enumerate(indices):
        wanted = indices[0] / video_fps + number / fps
        assert abs(times[index] - wanted) <= np.abs(times - wanted).min() + 1e-9


def test_fps_has_one_rule_at_every_frame_rate() -> None:
    sampler = ClipSampler(8, fps=5.0)
    for video_fps in (10.0, 15.0, 24.0, 30.0, 60.0):
        indices = sampler.indices(600, video_fps, None)
        assert (indices[-1] - indices[0]) / video_fps == pytest.approx(7 / 5, abs=0.5 / video_fps)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_short_video_starts_at_zero_and_repeats_its_last_frame(
    rng: np.random.Generator | None,
) -> None:
    assert ClipSampler(6, step=2).indices(5, 25.0, rng).tolist() == [0, 2, 4, 4, 4, 4]
    assert ClipSampler(3, fps=1.0).indices(1, 25.0, rng).tolist() == [0, 0, 0]


def test_video_of_exactly_the_span_has_one_start() -> None:
    rng = np.random.default_rng(0)
    assert {int(ClipSampler(4, step=2).indices(7, 1.0, rng)[0]) for _ in range(20)} == {0}


@pytest.mark.parametrize("arguments", [{}, {"step": 1, "fps": 4.0}])
def test_step_and_fps_exclude_each_other(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        ClipSampler(16, **arguments)


@pytest.mark.parametrize("arguments", [{"step": 0}, {"fps": -1.0}, {"step": 2, "frames": 0}])
def test_values_must_be_positive(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="positive"):
        ClipSampler(**{"frames": 16, **arguments})


@pytest.mark.parametrize("video_fps", [0.0, float("nan"), float("inf")])
def test_fps_needs_the_frame_rate_of_the_video(video_fps: float) -> None:
    with pytest.raises(DataError, match="frame rate"):
        ClipSampler(4, fps=4.0).indices(100, video_fps, None)
    ClipSampler(4, step=4).indices(100, video_fps, None)
