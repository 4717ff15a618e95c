from __future__ import annotations

import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from video_kinds import BROKEN, CODECS, FRAMES, KINDS, REFUSED, USABLE, WHOLE, numbers

from salt_plugin.video.decoding import decode_all, picture
from salt_plugin.video.exact_reader import ExactReader
from salt_plugin.video.opening import READERS, open_video
from salt_plugin.video.reader import MemoryReader, Reader, VideoReadError, require_memory
from salt_plugin.video.time_limit import ReadTimeoutError, within


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("cached", [False, True])
def test_frames_are_the_ones_asked_for(tiny_videos: Path, reader: str, cached: bool) -> None:
    path = str(tiny_videos / "ant" / "2.mp4")
    opened = open_video(path, reader)
    video: Reader = MemoryReader(opened, path) if cached else opened
    assert (len(video), tuple(video.size)) == (20, (64, 64))
    np.testing.assert_allclose(video.times, np.arange(20) / 10)
    indices = np.array([17, 3, 3, 0, 19])
    frames = video.frames(indices)
    assert frames.shape == (5, 3, 64, 64)
    assert frames.dtype == torch.uint8
    means = frames.float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(means, torch.tensor(10.0 * indices).float(), atol=3, rtol=0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reader", ["pyav", "auto"])
def test_every_kind_is_read_exactly_in_any_order(kinds: Path, name: str, reader: str) -> None:
    rng = np.random.default_rng(0)
    assert len(open_video(str(kinds / name), reader)) == FRAMES
    for _ in range(4):
        indices = rng.integers(0, FRAMES, 5)
        assert numbers(open_video(str(kinds / name), reader).frames(indices)) == indices.tolist()
    video = open_video(str(kinds / name), reader)
    again = [int(numbers(video.frames(np.array([index])))[0]) for index in (50, 3, 13, 12, 11)]
    assert again == [50, 3, 13, 12, 11]


@pytest.mark.parametrize("name", KINDS)
def test_decord_is_right_or_refused(kinds: Path, name: str) -> None:
    if name in ("closed.mp4", "plain.avi", "vp9.webm"):
        video = open_video(str(kinds / name), "decord")
        assert numbers(video.frames(np.array([50, 3, 13, 12, 11]))) == [50, 3, 13, 12, 11]
    else:
        with pytest.raises(VideoReadError, match=r"method\.data\.reader=pyav"):
            open_video(str(kinds / name), "decord")


@pytest.mark.parametrize("reader", READERS)
def test_missing_empty_and_foreign_files_say_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], reader: str
) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 1000)
    (tmp_path / "folder.mp4").mkdir()
    for name, reason in {
        "none.mp4": "No such file",
        "zero.mp4": "empty",
        "text.mp4": "not a video",
        "folder.mp4": "the folder holds no images",
        "nul\0.mp4": "null",
    }.items():
        with pytest.raises(VideoReadError, match=reason) as caught:
            open_video(str(tmp_path / name), reader)
        assert caught.value.path == str(tmp_path / name)
        assert reason in caught.value.reason
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"]
)
def test_playlists_do_not_lead_to_other_files(tiny_videos: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "list.mp4").write_text(text.format(tiny_videos / "ant" / "2.mp4"))
    for reader in READERS:
        with pytest.raises(VideoReadError, match="not a video"):
            open_video(str(tmp_path / "list.mp4"), reader)


def test_truncated_video_is_an_error_not_a_hang(tiny_videos: Path, tmp_path: Path) -> None:
    whole = (tiny_videos / "ant" / "2.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for reader in READERS:
        with pytest.raises(VideoReadError):
            open_video(str(tmp_path / "cut.mp4"), reader)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("indices", [[0, 99], [12]])
def test_frame_number_beyond_the_end_is_a_read_error(
    tiny_videos: Path, reader: str, indices: list[int]
) -> None:
    with pytest.raises(VideoReadError):
        open_video(str(tiny_videos / "ant" / "0.mp4"), reader).frames(np.array(indices))


def test_sizes_are_checked_before_memory_is_taken() -> None:
    require_memory("a.mp4", 16, (1080, 1920))
    with pytest.raises(VideoReadError, match="30000x20000 pixels"):
        require_memory("a.mp4", 1, (20000, 30000))
    with pytest.raises(VideoReadError, match=r"take 5\.8 GiB"):
        require_memory("a.mp4", 1000, (1080, 1920))
    with pytest.raises(VideoReadError, match="0x0"):
        require_memory("a.mp4", 1, (0, 0))


def test_a_header_that_states_a_huge_picture_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "raw.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = np.zeros((64, 64, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "raw.avi").read_bytes()
    small, large = ((side.to_bytes(4, "little") * 2) for side in (64, 12000))
    assert data.count(small) >= 2  # in the main header and in the stream's
    (tmp_path / "huge.avi").write_bytes(data.replace(small, large))
    for reader in READERS:
        with pytest.raises(VideoReadError, match=r"more than \d+ pixels"):
            open_video(str(tmp_path / "huge.avi"), reader)


def test_a_file_that_hangs_is_given_up() -> None:
    stop = threading.Event()
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError, match=r"a\.mp4: not read within 0\.1 s"):
        within(0.1, "a.mp4", stop.wait)
    stop.set()
    assert time.monotonic() - began < 5
    assert within(5, "a.mp4", lambda: 3) == within(None, "a.mp4", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, "a.mp4", lambda: 1 // 0)


READ_SLOWLY = """
import sys, time
from salt_plugin.video.time_limit import within
def read():
    print("reading", flush=True)
    sys.stdin.readline()
    return "read"
print(within(2.0, "a.mp4", read))
"""


def test_a_process_that_stands_still_takes_no_file_for_hanging() -> None:
    command = [sys.executable, "-c", READ_SLOWLY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        assert process.communicate("\n", timeout=60)[0] == "read\n"


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(VideoReadError("a.mp4", "why")))
    assert (error.path, error.reason, str(error)) == (
        "a.mp4",
        "why",
        "cannot read video a.mp4: why",
    )


@pytest.mark.parametrize("name", CODECS)
def test_codecs(shared_videos: Path, name: str) -> None:
    path = str(shared_videos / "codecs" / name)
    video = ExactReader(path)
    indices = np.random.default_rng(0).integers(0, len(video), 3)
    frames = dict(zip(indices.tolist(), video.frames(indices), strict=True))
    count = 0
    for number, frame in enumerate(decode_all(path)):
        count += 1
        if number in frames:
            truth = torch.from_numpy(picture(path, frame, video.facts).copy())
            assert torch.equal(frames[number], truth.permute(2, 0, 1))
    assert len(video) == count
    assert (np.diff(video.times) > 0).all()
    assert torch.equal(open_video(path, "auto").frames(indices), video.frames(indices))
    if name in REFUSED:
        with pytest.raises(VideoReadError, match=REFUSED[name]):
            open_video(path, "decord")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_or_right(
    shared_videos: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(shared_videos / "broken" / name)
    reason = BROKEN[name]
    if reason is None:
        assert len(MemoryReader(ExactReader(path), path)) == USABLE[name]
    else:
        with pytest.raises(VideoReadError, match=reason) as caught:
            MemoryReader(ExactReader(path), path)
        assert len(caught.value.reason) < 200
        assert "\n" not in caught.value.reason
    try:
        video = ExactReader(path)
    except VideoReadError:
        return
    truth = None
    if name != "decord_corrupted.mp4":  # of the others, the undamaged file is known
        truth = ExactReader(str(shared_videos / "codecs" / WHOLE[name.rpartition(".")[2]]))
    for index in np.linspace(0, len(video) - 1, 5).astype(int):
        try:
            frame = video.frames(np.array([index]))
        except VideoReadError:
            continue
        if truth is not None:
            assert torch.equal(frame, truth.frames(np.array([index])))
    assert capfd.readouterr().err == ""


def test_real_videos(shared_videos: Path) -> None:
    for path in sorted((shared_videos / "ut_interaction").rglob("*.avi"))[::40]:
        reader = ExactReader(str(path))
        assert len(reader) == sum(1 for _ in decode_all(str(path)))
        assert reader.frames(np.arange(0, len(reader), 10)).float().std() > 1


@pytest.mark.parametrize("reader", READERS)
def test_bad_files_do_not_add_up_in_memory(kinds: Path, tmp_path: Path, reader: str) -> None:
    whole = (kinds / "vp9.webm").read_bytes()
    (tmp_path / "text.mp4").write_text("no video " * 500)
    (tmp_path / "cut.mp4").write_bytes(whole[:200])
    (tmp_path / "zero.mp4").touch()
    data = bytearray((kinds / "closed.mp4").read_bytes())
    with av.open(str(kinds / "closed.mp4")) as container:
        for packet in list(container.demux(video=0))[20:40]:
            data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "hole.mp4").write_bytes(data)
    bad = [str(tmp_path / name) for name in ("text.mp4", "cut.mp4", "zero.mp4", "hole.mp4")]

    def read_all(rounds: int) -> int:
        for _ in range(rounds):
            for path in bad:
                with pytest.raises(VideoReadError):
                    within(60, path, partial(_frame, path, reader, 30))
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    before = read_all(30)
    assert read_all(150) - before < 8 * 2**20  # with readers left open, some 100 MiB


def _frame(path: str, reader: str, number: int) -> torch.Tensor:
    return open_video(path, reader).frames(np.array([number]))
