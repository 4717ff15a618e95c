from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from salt_plugin.data.reader import DecordReader, MemoryReader, VideoReadError

BROKEN = {
    "audio_only.mp4": "no video stream",
    "bitflips_mdat.mp4": "decoding failed",
    "bitflips_moov.mp4": "no video stream",
    "decord_corrupted.mp4": "decoding failed",
    "random.mp4": "not a video",
    "text.mp4": "not a video",
    "trunc_5pct_faststart.mp4": "decoding failed",
    "trunc_half_faststart.mp4": "decoding failed",
    "trunc_head_nomoov.mp4": "not a video",
    "zero.avi": "empty",
    "zero.mp4": "empty",
    "zeroed_middle.mp4": "decoding failed",
}


@pytest.mark.parametrize("reader_class", [DecordReader, MemoryReader])
def test_frames_are_the_ones_asked_for(tiny_videos: Path, reader_class: type) -> None:
    reader = reader_class(str(tiny_videos / "ant" / "2.mp4"))
    assert len(reader) == 20
    assert reader.fps == pytest.approx(10)
    indices = np.array([17, 3, 3, 0, 19])
    frames = reader.frames(indices)
    assert frames.shape == (5, 3, 64, 64)
    assert frames.dtype == torch.uint8
    means = frames.float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(means, torch.tensor(10.0 * indices).float(), atol=3, rtol=0)


def test_missing_empty_and_foreign_files_say_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 1000)
    (tmp_path / "folder.mp4").mkdir()
    for name, reason in {
        "none.mp4": "No such file",
        "zero.mp4": "empty",
        "text.mp4": "not a video",
        "folder.mp4": "not a video",
    }.items():
        with pytest.raises(VideoReadError, match=reason) as caught:
            DecordReader(str(tmp_path / name))
        assert caught.value.path == str(tmp_path / name)
        assert reason in caught.value.reason
    assert capfd.readouterr().err == ""


def test_truncated_video_is_an_error_not_a_hang(tiny_videos: Path, tmp_path: Path) -> None:
    whole = (tiny_videos / "ant" / "2.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoReadError):
        DecordReader(str(tmp_path / "cut.mp4"))


def test_frame_number_beyond_the_end_is_a_read_error(tiny_videos: Path) -> None:
    with pytest.raises(VideoReadError):
        DecordReader(str(tiny_videos / "ant" / "0.mp4")).frames(np.array([0, 99]))


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(VideoReadError("a.mp4", "why")))
    assert (error.path, error.reason, str(error)) == (
        "a.mp4",
        "why",
        "cannot read video a.mp4: why",
    )


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_in_the_wild(
    shared_videos: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(VideoReadError, match=BROKEN[name]) as caught:
        MemoryReader(str(shared_videos / "broken" / name))
    assert len(caught.value.reason) < 200
    assert "\n" not in caught.value.reason
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name",
    [
        "h264.mp4",
        "h264_1frame.mp4",
        "h264_vfr.mp4",
        "hevc8.mp4",
        "mpeg2.mpg",
        "vp8.webm",
        "vp9.webm",
    ],
)
def test_codecs(shared_videos: Path, name: str) -> None:
    reader = DecordReader(str(shared_videos / "codecs" / name))
    assert reader.frames(np.array([0, len(reader) - 1])).shape == (2, 3, 256, 456)
    assert reader.fps > 0


def test_real_videos(shared_videos: Path) -> None:
    for path in sorted((shared_videos / "ut_interaction").rglob("*.avi"))[::40]:
        reader = DecordReader(str(path))
        assert reader.frames(np.arange(0, len(reader), 10)).float().std() > 1
