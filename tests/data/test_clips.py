from __future__ import annotations

import numpy as np
import pytest

from salt_plugin.data.clips import ClipSampler
from salt_plugin.errors import ConfigError


def test_step_spaces_frames_evenly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        indices = ClipSampler(frames=4, step=3).indices(np.arange(30) / 25, rng)
        assert indices.dtype == np.int64
        assert (np.diff(indices) == 3).all()
        assert indices[0] >= 0
        assert indices[-1] < 30


@pytest.mark.parametrize("sampler", [ClipSampler(4, step=3), ClipSampler(4, fps=8.0)])
def test_random_start_is_uniform_over_all_valid_starts(sampler: ClipSampler) -> None:
    rng = np.random.default_rng(0)
    draws, valid = 10_000, 20 - 9
    starts = [sampler.indices(np.arange(20) / 24, rng)[0] for _ in range(draws)]
    counts = np.bincount(starts, minlength=valid)
    assert len(counts) == valid
    chi_squared = ((counts - draws / valid) ** 2 / (draws / valid)).sum()
    assert chi_squared < 29.6  # 0.1 % point of chi-squared with 10 degrees of freedom


def test_centred_clip() -> None:
    assert ClipSampler(4, step=2).indices(np.arange(11) / 25, None).tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(("video_fps", "fps"), [(30.0, 4.0), (29.97, 8.0), (10.0, 24.0), (25, 25)])
def test_fps_takes_the_nearest_frame_in_time(video_fps: float, fps: float) -> None:
    times = np.arange(500) / video_fps
    indices = ClipSampler(8, fps=fps).indices(times, np.random.default_rng(1))
    for number, index in enumerate(indices):
        wanted = indices[0] / video_fps + number / fps
        assert abs(times[index] - wanted) <= np.abs(times - wanted).min() + 1e-9


def test_fps_has_one_rule_at_every_frame_rate() -> None:
    sampler = ClipSampler(8, fps=5.0)
    for video_fps in (10.0, 15.0, 24.0, 30.0, 60.0):
        indices = sampler.indices(np.arange(600) / video_fps, None)
        assert (indices[-1] - indices[0]) / video_fps == pytest.approx(7 / 5, abs=0.5 / video_fps)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_short_video_starts_at_zero_and_repeats_its_last_frame(
    rng: np.random.Generator | None,
) -> None:
    assert ClipSampler(6, step=2).indices(np.arange(5) / 25, rng).tolist() == [0, 2, 4, 4, 4, 4]
    assert ClipSampler(3, fps=1.0).indices(np.zeros(1), rng).tolist() == [0, 0, 0]


def test_video_of_exactly_the_span_has_one_start() -> None:
    rng = np.random.default_rng(0)
    assert {int(ClipSampler(4, step=2).indices(np.arange(7.0), rng)[0]) for _ in range(20)} == {0}


@pytest.mark.parametrize("arguments", [{}, {"step": 1, "fps": 4.0}])
def test_step_and_fps_exclude_each_other(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        ClipSampler(16, **arguments)


@pytest.mark.parametrize("arguments", [{"step": 0}, {"fps": -1.0}, {"step": 2, "frames": 0}])
def test_values_must_be_positive(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="positive"):
        ClipSampler(**{"frames": 16, **arguments})


def screen_recording() -> np.ndarray:
    """Times of 2 s at 30 frames/s, then 28 s at 2 frames/s."""
    return np.concatenate([np.arange(60) / 30, 2 + np.arange(56) / 2])


def test_a_rate_goes_by_time_stamps_where_the_video_has_no_regular_one() -> None:
    sampler, times, rng = ClipSampler(16, fps=4.0), screen_recording(), np.random.default_rng(0)
    starts = []
    for _ in range(2000):
        indices = sampler.indices(times, rng)
        wanted = times[indices[0]] + np.arange(16) / 4
        nearest = np.abs(times - wanted[:, None]).min(1)
        np.testing.assert_allclose(np.abs(times[indices] - wanted), nearest, atol=1e-6)
        starts.append(times[indices[0]])
    # Uniform in time: 2 of the 26 s, not 60 of the 110 frames, from which a clip fits.
    assert np.mean(np.array(starts) < 2) == pytest.approx(2 / 26, abs=0.02)
    middle = sampler.segments(times, 3)[1]
    assert times[middle[0]] == pytest.approx(times[sampler.indices(times, None)[0]])
    assert times[middle[0]] == pytest.approx((times[-1] + 0.25 - 3.75) / 2, abs=0.5)


def test_a_step_counts_frames_whatever_their_times() -> None:
    indices = ClipSampler(4, step=3).indices(screen_recording(), np.random.default_rng(3))
    again = ClipSampler(4, step=3).indices(np.arange(116) / 25, np.random.default_rng(3))
    assert indices.tolist() == again.tolist()
