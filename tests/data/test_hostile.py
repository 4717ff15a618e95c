"""Whatever bytes, numbers or names come in: an error of ours, or a result that holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from drawn import draw
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from salt_plugin.batch import MaskSet
from salt_plugin.data import ClipSampler, open_video, read_inputs
from salt_plugin.errors import SaltError
from salt_plugin.masks import MultiBlockMasks, TubeMasks

T = TypeVar("T")

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SETTINGS
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    _listed_or_refused(tmp_path)


@SETTINGS
@example(lines=[("a.mp4", str(2**64))])
@example(lines=[("a.mp4", "1" * 5000)])
@example(lines=[("a.mp4", "\u0663")])
@example(lines=[("nul\0.mp4", "1")])
@given(
    lines=st.lists(
        st.tuples(st.text(max_size=40), st.one_of(st.integers().map(str), st.text(max_size=6)))
    )
)
def test_any_text_as_a_list(tmp_path: Path, lines: list[tuple[str, str]]) -> None:
    text = "\n".join(" ".join(line) for line in lines)
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    _listed_or_refused(tmp_path)


def _listed_or_refused(folder: Path) -> None:
    videos, error = _tried(lambda: read_inputs(str(folder / "list.csv")))
    if videos is None:
        assert "list.csv" in error
        assert len(error) < 2000
    else:
        assert len(videos.paths) == len(videos.labels) == len(videos.source) > 0
        assert all(os.path.isabs(path) or "://" in path for path in videos.paths)
        assert all(-1 <= label < 2**63 for label in videos.labels)


@SETTINGS
@example(frames=8, step=None, fps=1.0, num_frames=9, video_fps=1e6, seed=0)
@example(frames=8, step=2**62, fps=None, num_frames=9, video_fps=1.0, seed=0)
@example(frames=8, step=2**80, fps=None, num_frames=9, video_fps=1.0, seed=0)
@example(frames=8, step=None, fps=1e-300, num_frames=9, video_fps=1e6, seed=0)
@given(
    frames=st.integers(-2, 64),
    step=st.one_of(st.none(), st.integers(-2, 2**40)),
    fps=st.one_of(st.none(), st.floats(width=32)),
    num_frames=st.integers(1, 10**5),
    video_fps=st.floats(1e-6, 1e6),
    seed=st.integers(0, 9),
)
def test_any_numbers_for_a_clip(
    frames: int,
    step: int | None,
    fps: float | None,
    num_frames: int,
    video_fps: float,
    seed: int,
) -> None:
    def draw() -> tuple[np.ndarray, np.ndarray]:
        sampler = ClipSampler(frames, step=step, fps=fps)
        times = np.arange(num_frames) / video_fps
        clip = sampler.indices(times, np.random.default_rng(seed))
        return clip, sampler.segments(times, 3)

    drawn, _ = _tried(draw)
    if drawn is None:
        return
    clip, parts = drawn
    assert clip.shape == (frames,)
    assert parts.shape == (3, frames)
    for indices in (clip, *parts):
        assert indices.min() >= 0
        assert indices.max() < num_frames
        assert (np.diff(indices) >= 0).all()


@SETTINGS
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)),
    kind=st.sampled_from(["multiblock", "tube"]),
    share=st.floats(-0.5, 1.5),
    step=st.integers(0, 5),
)
def test_any_grid_for_masks(grid: tuple[int, int, int], kind: str, share: float, step: int) -> None:
    total = grid[0] * grid[1] * grid[2]

    def drawn_masks() -> list[MaskSet]:
        masks = MultiBlockMasks() if kind == "multiblock" else TubeMasks(ratio=share)
        return draw(masks, 2, grid, step=step)

    drawn, error = _tried(drawn_masks)
    assert len(error) < 500
    for mask in drawn or []:
        for row_c, row_t in zip(mask.context.tolist(), mask.target.tolist(), strict=True):
            assert len(row_c) > 0
            assert len(row_t) > 0
            assert not set(row_c) & set(row_t)
            assert set(row_c) | set(row_t) <= set(range(total))


@settings(SETTINGS, max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("name", ["closed.mp4", "plain.avi", "vp9.webm"])
def test_any_damage_to_a_video(kinds: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = bytearray((kinds / name).read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] ^= data.draw(st.integers(1, 255))
    end = data.draw(places) if data.draw(st.booleans()) else len(content)
    (tmp_path / name).write_bytes(content[:end])
    for reader in ("pyav", "auto"):
        frames, error = _tried(partial(_first_and_last, str(tmp_path / name), reader))
        assert "\n" not in error
        assert frames is None or frames.shape[:2] == (2, 3)


def _first_and_last(path: str, reader: str) -> torch.Tensor:
    video = open_video(path, reader)
    return video.frames(np.array([0, len(video) - 1]))


def _tried(call: Callable[[], T]) -> tuple[T | None, str]:
    """Returns the result, or the message of an error of ours; any other error is raised."""
    try:
        return call(), ""
    except SaltError as error:
        return None, str(error)
