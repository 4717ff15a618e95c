"""Files that begin amid frames that refer to earlier ones, and frames lost before damage."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from video_kinds import FRAMES, KINDS, numbers, write_kind

from salt_plugin.commands import data
from salt_plugin.data import open_video
from salt_plugin.video.check import check_video

PYRAMID = "open-gop=1:keyint=12:b-pyramid=normal:scenecut=0:b-adapt=0"
OPEN = {
    "h264.ts": ("libx264", {"bf": "3", "x264-params": PYRAMID}),
    "h264.m2ts": ("libx264", {"bf": "3", "x264-params": PYRAMID + ":ref=4"}),
    "hevc.ts": KINDS["hevc.mp4"],
    "hevc.mpg": KINDS["hevc.mp4"],  # without time stamps of most packets
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "3", "b": "4M"}),
    "mpeg2.mpg": KINDS["mpeg2.mpg"],
}
BLOCKS = {"ts": 188, "m2ts": 192, "mpg": 2048}


def plain(path: Path) -> Tensor | None:
    """Decodes a file with nothing but PyAV, without what it marks as damaged."""
    frames = []
    try:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    continue
                frames += [f.to_ndarray(format="rgb24") for f in decoded if not f.is_corrupt]
    except av.FFmpegError:
        return None
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) if frames else None


def require_same(path: Path, truth: Tensor) -> None:
    """Compares frames, in order and alone, and what the check says."""
    verdict = check_video(str(path), "pyav", 6, 0)
    assert (verdict.reason, verdict.damage, verdict.frames) == (None, None, len(truth)), path
    video = open_video(str(path))
    assert torch.equal(video.frames(np.arange(len(video))), truth)
    for number in (len(truth) - 1, 0, len(truth) // 2):
        assert torch.equal(open_video(str(path)).frames(np.array([number]))[0], truth[number])


@pytest.mark.parametrize("name", OPEN)
def test_a_capture_that_begins_in_an_open_gop_is_read_from_its_first_clean_picture(
    tmp_path: Path, name: str
) -> None:
    whole = tmp_path / f"whole_{name}"
    write_kind(whole, *OPEN[name])
    block, stored = BLOCKS[name.split(".")[1]], whole.read_bytes()
    seen = 0
    for number in np.unique(np.linspace(1, len(stored) // block // 2, 15).astype(int)).tolist():
        begin = number * block
        path = tmp_path / f"{begin}_{name}"
        path.write_bytes(stored[begin:])
        truth = plain(path)
        if truth is None:  # no parameters of the stream are left
            continue
        seen += 1
        shown = numbers(truth)
        assert shown == list(range(shown[0], FRAMES))  # the truth is clean
        require_same(path, truth)
    assert seen > (0 if name.endswith("mpg") else 6)


def test_the_check_takes_a_capture_that_begins_in_an_open_gop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hevc.ts"
    write_kind(path, *OPEN["hevc.ts"])
    stored = path.read_bytes()
    path.write_bytes(stored[188 * (len(stored) // 188 // 3) :])
    data.main(["check", str(tmp_path), "--workers", "1", "--positions", "2"])
    assert "1 of 1 files can be trained on" in capsys.readouterr().out


def test_an_edit_list_may_begin_in_an_open_gop(tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    write_kind(path, *OPEN["h264.m2ts"])
    stored = bytearray(path.read_bytes())
    place = stored.index(b"elst") + 16  # after name, version, count, duration
    [begin] = struct.unpack_from(">i", stored, place)
    for number in (9, 14, 18, 20, 23, 27, 31):
        struct.pack_into(">i", stored, place, begin + 512 * number)
        path = tmp_path / f"edited{number}.mp4"
        path.write_bytes(stored)
        truth = plain(path)
        assert truth is not None
        assert numbers(truth) == list(range(number, FRAMES))
        require_same(path, truth)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_damage_after_a_keyframe_that_needs_nothing_is_still_told(
    tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "damaged.mp4"
    write_kind(path, codec, {"bf": "2", "g": "12", "x265-params": "log-level=none"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][1]
        place, size = packet.pos + 8, packet.size - 8
    stored = path.read_bytes()
    noise = np.random.default_rng(0).bytes(size)
    path.write_bytes(stored[:place] + noise + stored[place + size :])
    assert check_video(str(path), "pyav", 4, 0).reason is not None


def test_no_frame_takes_the_number_of_one_lost_before_damage(tmp_path: Path) -> None:
    whole = tmp_path / "whole.flv"
    write_kind(whole, *OPEN["h264.ts"])
    stored = whole.read_bytes()
    with av.open(str(whole)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    damaged = 0
    for number in range(24, 50):
        begin = places[number] + 70
        end = begin + 40
        noise = np.random.default_rng(number).bytes(end - begin)
        path = tmp_path / f"{number}.flv"
        path.write_bytes(stored[:begin] + noise + stored[end:])
        verdict = check_video(str(path), "pyav", 4, 0)
        if not verdict.damage:  # none that the decoder notices, or none at the end
            continue
        damaged += 1
        video = open_video(str(path))
        assert verdict.damage.startswith(f"frame {len(video)} is damaged")
        assert numbers(video.frames(np.arange(len(video)))) == list(range(len(video)))
    assert damaged > 2
