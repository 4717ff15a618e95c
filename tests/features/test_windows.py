from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from video_kinds import FRAMES, KINDS, numbers, write_kind

from salt_plugin.data import ExactReader, open_video
from salt_plugin.errors import ConfigError
from salt_plugin.features.windows import Plan, Windows, parse_length, read_clips
from salt_plugin.transforms import SALTEvalTransform
from salt_plugin.video.time_limit import heard_by


def windows(window: str, stride: str, frames: int = 4) -> Windows:
    return Windows(frames, parse_length(window, "--window"), parse_length(stride, "--stride"))


def slow(asked: Windows, times: np.ndarray) -> Plan:
    """Windows of a video of a constant rate, one after the other."""
    times = times - times[0]
    tick = times[1] - times[0]
    found = []
    for number in range(10_000):
        start = number * asked.stride.value * (1 if asked.stride.in_seconds else tick)
        first = int(start / tick + 1e-6)
        span = asked.window.value * (1 if asked.window.in_seconds else tick)
        begin = start if asked.window.in_seconds else first * tick
        if number and begin + span > len(times) * tick + 1e-6:
            break
        clip = []
        for i in range(asked.frames):
            at = first + i * span / asked.frames / tick
            nearest = int(at + 0.5 + 1e-6) if asked.window.in_seconds else int(at + 1e-6)
            clip.append(min(nearest, len(times) - 1))
        found.append((clip, begin, min(begin + span, len(times) * tick)))
    clips, starts, ends = zip(*found, strict=True)
    return Plan(np.array(clips), np.array(starts), np.array(ends))


@pytest.mark.parametrize("window", ["4", "8", "7", "1", "200", "0.5s", "1.3s", "99s"])
@pytest.mark.parametrize("stride", ["1", "8", "13", "0.5s", "0.07s"])
@pytest.mark.parametrize(("length", "begin"), [(60, 0.0), (61, 1.4)])
def test_windows_are_those_of_a_plain_loop(
    window: str, stride: str, length: int, begin: float
) -> None:
    asked = windows(window, stride)
    times = begin + np.arange(length) / 25
    plan, expected = asked.of(times), slow(asked, times)
    assert plan.indices_wt.tolist() == expected.indices_wt.tolist()
    np.testing.assert_allclose(plan.starts_w, expected.starts_w, atol=1e-9)
    np.testing.assert_allclose(plan.ends_w, expected.ends_w, atol=1e-9)


def test_windows_in_seconds_keep_to_the_time_where_the_rate_changes() -> None:
    times = np.append(np.arange(60) / 30, 2 + np.arange(56) / 2)  # 2 s at 30, then 28 s at 2
    plan = windows("4s", "4s").of(times)
    assert plan.starts_w.tolist() == [0, 4, 8, 12, 16, 20, 24]
    shown = times[plan.indices_wt] - plan.starts_w[:, None]
    np.testing.assert_allclose(shown, np.tile([0, 1, 2, 3], (7, 1)), atol=0.5 / 30)


def test_an_image_is_one_window() -> None:
    for window, stride in (("16", "16"), ("2s", "1s"), ("16", "1s")):
        plan = windows(window, stride).of(np.zeros(1))
        assert plan.indices_wt.tolist() == [[0, 0, 0, 0]]
        assert (plan.starts_w.tolist(), plan.ends_w[0] >= 0) == ([0], True)


@pytest.mark.parametrize("text", ["", "0", "-1", "2.5", "0s", "0.001s", "2 m", "nan", "s", "1e3"])
def test_a_length_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--window .*: expected a whole number of frames"):
        parse_length(text, "--window")


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_read_on_are_those_that_are_sought(kinds: Path, kind: str) -> None:
    for indices in ([*range(FRAMES)], [3, 4, 11, 12, 13, 50], [59], [0, 24, 36, 37, 59]):
        frames = [*ExactReader(str(kinds / kind)).stream(np.array(indices))]
        assert numbers(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)) == indices


def test_clips_of_windows_are_those_of_the_frames_alone(kinds: Path) -> None:
    transform = SALTEvalTransform(32)
    asked = windows("16", "5", frames=8)
    for kind in ("open.mp4", "bframes.avi"):
        reader = open_video(str(kinds / kind))
        indices = asked.of(reader.times).indices_wt
        clips = read_clips(reader, indices, lambda frame: transform.cropped(frame[None])[0][0])
        for row, clip in zip(indices, clips, strict=True):
            assert torch.equal(transform.normalization(clip), transform(reader.frames(row)))


def test_what_reading_costs_is_what_is_read(tmp_path: Path) -> None:
    """Beats are packets and frames: two for each frame that is decoded."""
    write_kind(tmp_path / "a.mp4", *KINDS["closed.mp4"])
    reader = ExactReader(str(tmp_path / "a.mp4"))

    def beats(asked: Windows, first: int = 0) -> int:
        heard = [0]
        with heard_by(lambda: heard.append(1)):
            assert len(
                [*read_clips(reader, asked.of(reader.times).indices_wt[first:], torch.clone)]
            )
        return sum(heard)

    lead = 8  # packets that the decoder waits for
    assert beats(windows("16", "1")) <= 2 * FRAMES + lead  # each frame once, in 45 windows
    assert beats(windows("4", "4"), first=14) <= 2 * 12 + lead  # the last window: its group alone
    far = windows("2", "24", frames=2)  # of five groups of 12 the first, third and fifth
    assert beats(far) <= 3 * (2 * 2 + lead)
