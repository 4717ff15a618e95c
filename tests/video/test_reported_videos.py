"""Videos of the kinds that users of other software report: every reader is right, or says why not.

Those beside the checkout, each with the right answer, and files of the same kinds that are made.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from video_kinds import FRAMES, KINDS, numbers, pixels, write_kind

from salt_plugin.commands import data
from salt_plugin.data import (
    ClipSampler,
    SampleKey,
    VideoDataset,
    VideoList,
    checking,
    open_video,
)
from salt_plugin.evaluation.metadata import metadata
from salt_plugin.video import fact_cache
from salt_plugin.video.check import Verdict, can_be_mended, check_video
from salt_plugin.video.decoding import decode_all
from salt_plugin.video.opening import READERS
from salt_plugin.video.reader import VideoReadError
from salt_plugin.video.scan import scan
from salt_plugin.video.time_limit import within

# Number of frames, and the number that the frame shows at each: those of `base.mp4`.
BASE = 60
REPORTED = {
    "audio_longer.mp4": BASE,
    "base.flv": BASE,
    "base.mp4": BASE,
    "base.ts": BASE,
    "cover_stream0.mp4": BASE,
    "greystack0.avi": 20,
    "hflip.mp4": BASE,
    "preview_first.mov": BASE,
    "sizes.mkv": BASE,
    "trunc_frag.mp4": 27,
    "vfr_screen.mp4": 116,
}
NOT_FOR_DECORD = {
    "base.flv": "h264 in flv",
    "base.ts": "h264 in mpegts",
    "cover_stream0.mp4": "several video streams",
    "greystack0.avi": "rawvideo",
    "hflip.mp4": "mirror",
    "preview_first.mov": "several video streams",
    "sizes.mkv": "frame size changes",
    "trunc_frag.mp4": "was cut",
}


def plain(path: Path, name: str) -> Tensor:
    """Decodes a file with nothing but PyAV, as FFmpeg shows it (uint8 [T, 3, H, W])."""
    frames = []
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.video if s.codec.name in ("h264", "rawvideo"))
        size = {"width": stream.width, "height": stream.height}
        for frame in container.decode(stream):
            shown = frame.to_ndarray(format="rgb24", **size)
            frames.append(shown[:, ::-1] if name == "hflip.mp4" else shown)
            if len(frames) == 26 and name == "trunc_frag.mp4":
                break
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", REPORTED)
def test_a_reported_video_is_read_right_or_refused(
    shared_videos: Path, name: str, reader: str
) -> None:
    path = shared_videos / "reported" / name
    verdict = check_video(str(path), reader, 4, 0)
    if reader == "decord" and name in NOT_FOR_DECORD:
        with pytest.raises(VideoReadError, match=NOT_FOR_DECORD[name]):
            open_video(str(path), reader)
        assert NOT_FOR_DECORD[name] in str(verdict.reason)
        return
    assert (verdict.reason, verdict.frames) == (None, REPORTED[name])
    assert verdict.cut == (name == "trunc_frag.mp4")
    assert (verdict.damage or "").startswith("frame 27 is damaged" if verdict.cut else "")
    video = open_video(str(path), reader)
    assert len(video) == len(video.times) == REPORTED[name]
    truth = plain(path, name)
    for chosen in ([7, 3, 12], [0, 19], list(range(len(truth)))):  # 40 and 59 too, where there
        frames = video.frames(np.array(chosen))
        assert frames.shape[-2:] == truth.shape[-2:]
        # Frames of another size than the first are scaled, by another filter here.
        same = frames.float() - truth[chosen].float()
        assert same.abs().mean() < (6 if name == "sizes.mkv" else 1e-9)
    if name == "greystack0.avi":
        assert video.frames(np.array([0])).float().mean() == 63


def test_a_clip_by_rate_spans_the_same_time_wherever_it_starts(shared_videos: Path) -> None:
    video = open_video(str(shared_videos / "reported" / "vfr_screen.mp4"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = video.times[ClipSampler(16, fps=4.0).indices(video.times, rng)]
        assert times[-1] - times[0] == pytest.approx(3.75, abs=0.26)


def test_the_check_lists_reported_videos_as_training_reads_them(
    shared_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("audio_longer.mp4", "sizes.mkv", "trunc_frag.mp4", "preview_first.mov")
    for name in chosen:
        (tmp_path / name).write_bytes((shared_videos / "reported" / name).read_bytes())
    data.main(["check", str(tmp_path), "--workers", "1", "--positions", "2"])
    out = capsys.readouterr().out
    assert "4 of 4 files can be trained on" in out
    assert "cut short: 1\n" in out
    assert "trunc_frag.mp4: frame 27 is damaged or missing; the 27 before it are used" in out
    assert "preview_first.mov -map 0:1 -an" in out


IDENTITY = np.array([65536, 0, 0, 0, 65536, 0, 0, 0, 2**30], ">i4")


def turned_file(kinds: Path, path: Path, a: float, b: float, c: float, d: float) -> str:
    """Copies a file with another display matrix, the second of an MP4: that of the track."""
    matrix = IDENTITY.copy()
    matrix[[0, 1, 3, 4]] = np.array([a, b, c, d]) * 65536
    whole = (kinds / "closed.mp4").read_bytes()
    place = whole.index(IDENTITY.tobytes(), whole.index(IDENTITY.tobytes()) + 1)
    path.write_bytes(whole[:place] + matrix.tobytes() + whole[place + matrix.nbytes :])
    return str(path)


HALF = 3**0.5 / 2
QUARTERS = ((1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0))


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), lambda x: x.flip(-1)),
        ((1, 0, 0, -1), lambda x: x.flip(-2)),
        ((-1, 0, 0, -1), lambda x: x.rot90(2, (-2, -1))),
        ((0, 1, -1, 0), lambda x: x.rot90(-1, (-2, -1))),  # clockwise
        ((0, -1, 1, 0), lambda x: x.rot90(1, (-2, -1))),
        ((0, 1, 1, 0), lambda x: x.transpose(-2, -1)),
        ((0, -1, -1, 0), lambda x: x.rot90(2, (-2, -1)).transpose(-2, -1)),
        ((HALF, 0.5, -0.5, HALF), lambda x: x),  # by 30 degrees
        ((0.5, HALF, -HALF, 0.5), lambda x: x.rot90(-1, (-2, -1))),
    ],
)
def test_mirrors_and_turns_are_those_of_the_display_matrix(
    kinds: Path, tmp_path: Path, matrix: tuple[float, ...], upright: Callable[[Tensor], Tensor]
) -> None:
    path = turned_file(kinds, tmp_path / "turned.mp4", *matrix)
    chosen = np.array([30, 5])
    wanted = upright(open_video(str(kinds / "closed.mp4")).frames(chosen))
    for reader in READERS:
        if reader == "decord" and matrix not in QUARTERS:
            with pytest.raises(VideoReadError, match="decord knows quarter turns alone"):
                open_video(path, reader)
        else:
            assert torch.equal(open_video(path, reader).frames(chosen), wanted), reader


@pytest.mark.parametrize("codec", ["rawvideo", "msrle"])
def test_a_palette_of_the_first_packet_holds_for_all_frames(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "palette.avi"
    palette = np.stack([np.full(256, 255), *(np.arange(256),) * 3], 1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for number in range(20):
            image = np.full((48, 64), 50 + 5 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray((image, palette), format="pal8")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert check_video(str(path), "pyav", 4, 0).reason is None
    frames = open_video(str(path)).frames(np.array([13, 2, 19]))
    assert frames.float().mean((1, 2, 3)).tolist() == [115, 60, 145]


def test_a_small_stream_before_the_video_is_not_taken_for_it(kinds: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(kinds / "closed.mp4")) as source, av.open(str(path), "w") as container:
        preview = container.add_stream("mjpeg", rate=1)
        preview.width, preview.height, preview.pix_fmt = 32, 24, "yuvj420p"
        copied = container.add_stream_from_template(source.streams.video[0])
        for _ in range(3):
            container.mux(preview.encode(av.VideoFrame(32, 24, "yuvj420p")))
        container.mux(preview.encode())
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                container.mux(packet)
    for reader in ("pyav", "auto"):
        assert numbers(open_video(str(path), reader).frames(np.array([50, 3]))) == [50, 3]
    assert "several video streams" in str(check_video(str(path), "decord", 2, 0).reason)
    verdict = check_video(str(path), "pyav", 2, 0)
    assert (verdict.reason, verdict.frames, verdict.stream) == (None, 60, 1)
    assert metadata([str(path)])[0, 3:5].tolist() == [64, 64]


def test_frames_have_the_size_of_the_first_one_where_the_stream_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "sizes.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=25, options={"deadline": "realtime"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        other = av.CodecContext.create("libvpx", "w")
        other.width, other.height, other.pix_fmt = 128, 96, "yuv420p"
        other.time_base, other.options = Fraction(1, 25), {"deadline": "realtime"}
        for number in range(20):
            picture = av.VideoFrame.from_ndarray(pixels(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        for number in range(20, 40):
            picture = av.VideoFrame.from_ndarray(pixels(number), format="rgb24")
            large = picture.reformat(128, 96, "yuv420p")
            large.pts, large.time_base = number, Fraction(1, 25)
            for packet in other.encode(large):
                packet.stream = stream
                container.mux(packet)
    verdict = check_video(str(path), "pyav", 8, 0)
    assert (verdict.reason, verdict.frames) == (None, 40)
    assert "frame size changes" in str(verdict.danger)
    frames = open_video(str(path)).frames(np.array([30, 18, 22]))  # across the change
    assert numbers(frames) == [30, 18, 22]


@pytest.mark.parametrize(
    "name", ["plain.avi", "vp9.webm", "closed.flv", "closed.ts", "open.m2ts", "closed.mp4"]
)
def test_of_a_file_that_was_cut_the_frames_before_are_used(
    kinds: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes((kinds / name).read_bytes())
    if name == "closed.mp4":
        write_kind(path, *KINDS[name], muxer="movflags=frag_keyframe+empty_moov+default_base_moof")
    with av.open(str(path)) as container:  # within the 37th packet, of a frame that others need
        packet = [packet for packet in container.demux(video=0) if packet.size][37]
        place, size = packet.pos, packet.size
    path.write_bytes(path.read_bytes()[: place + max(size // 2, 9)])
    verdict = check_video(str(path), "pyav", 8, 0)
    assert verdict.reason is None
    assert verdict.frames is not None
    assert 20 < verdict.frames < 50
    if verdict.damage:
        assert verdict.cut
        assert f"frame {verdict.frames} is damaged" in verdict.damage
    dataset = VideoDataset(
        VideoList([str(path)], [0], None, [0]), ClipSampler(4, 3), lambda x: x, seed=0
    )
    for step in range(12):
        item = dataset[SampleKey(step, 0, 0)]
        assert item.skipped == []
        first, *others = numbers(item.clip)
        assert others == [first + 3, first + 6, first + 9]
    last = verdict.frames - 1
    assert numbers(open_video(str(path)).frames(np.array([last]))) == [last]


def reel(path: Path, options: dict[str, str], width: int = 64, height: int = 64) -> str:
    """Writes 60 frames of H.264 that move."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(60):
            grid = np.add.outer(3 * np.arange(height), 5 * np.arange(width)) + 7 * number
            image = np.repeat((grid % 200).astype(np.uint8)[..., None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_decord_refuses_keyframes_that_need_frames_before(tmp_path: Path, suffix: str) -> None:
    options = {"g": "12", "bf": "0", "x264-params": "intra-refresh=1"}
    path = reel(tmp_path / f"refresh.{suffix}", options)
    assert "open-GOP h264" in str(check_video(path, "decord", 2, 0).reason)
    with pytest.raises(VideoReadError, match="open-GOP h264"):
        open_video(path, "decord")
    whole = open_video(path).frames(np.arange(60))
    assert torch.equal(open_video(path, "auto").frames(np.array([50])), whole[50:51])


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [("mp4", "interlaced"), ("mkv", "interlaced"), ("webm", "odd width"), ("avi", "odd width")],
)
def test_decord_refuses_what_gives_it_other_pixels(
    tmp_path: Path, suffix: str, reason: str
) -> None:
    path = tmp_path / f"pixels.{suffix}"
    if reason == "interlaced":
        reel(path, {"flags": "+ildct+ilme", "x264-params": "tff=1"})
    else:
        with av.open(str(path), "w") as container:
            codec = "mpeg4" if suffix == "avi" else "libvpx"
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 17, 33, "yuv420p"
            for _ in range(20):
                container.mux(stream.encode(av.VideoFrame(17, 33, "yuv420p")))
            container.mux(stream.encode())
    assert reason in str(check_video(str(path), "decord", 2, 0).reason)
    with pytest.raises(VideoReadError, match=reason):
        open_video(str(path), "decord")
    wanted = open_video(str(path)).frames(np.arange(9))
    assert torch.equal(open_video(str(path), "auto").frames(np.arange(9)), wanted)


def packets_of(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, part) for name in ("mpeg2.mpg", "mpeg2.vob") for part in (0.7, 0.93)),
        *((f"tail.{suffix}", 0.6) for suffix in ("wmv", "asf")),
    ],
)
def test_a_file_without_an_index_that_is_cut_anywhere_keeps_its_frames(
    kinds: Path, tmp_path: Path, name: str, part: float
) -> None:
    path = tmp_path / name
    if name.startswith("tail"):
        write_kind(path, "msmpeg4", {"g": "12", "qmin": "2", "qmax": "2"})
    else:
        path.write_bytes((kinds / name).read_bytes())
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    verdict = check_video(str(path), "pyav", 8, 0)
    assert verdict.reason is None
    video = open_video(str(path))
    assert len(video) == verdict.frames
    assert FRAMES * part - 18 < len(video) < FRAMES
    assert numbers(video.frames(np.arange(len(video)))) == list(range(len(video)))
    assert numbers(video.frames(np.array([len(video) - 1]))) == [len(video) - 1]


@pytest.mark.parametrize("name", ["tail.mkv", "plain.avi", "closed.mp4", "tail.avi", "vp9.webm"])
def test_of_a_file_that_ends_in_zeros_the_frames_before_are_used(
    kinds: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "closed.mp4":
        write_kind(path, *KINDS[name], muxer="movflags=faststart")
    elif name.startswith("tail"):
        write_kind(path, "libx264", {"g": "12", "bf": "0"})
    else:
        path.write_bytes((kinds / name).read_bytes())
    whole = path.read_bytes()
    place, size = packets_of(path)[37]
    place += size - min(40, size // 2)
    path.write_bytes(whole[:place] + bytes(len(whole) - place))
    verdict = check_video(str(path), "pyav", 8, 0)
    assert (verdict.reason, verdict.cut) == (None, True)
    video = open_video(str(path))
    assert len(video) == verdict.frames
    assert 30 < len(video) <= 38
    assert numbers(video.frames(np.arange(len(video)))) == list(range(len(video)))


def test_no_line_is_given_for_a_file_that_is_damaged_inside() -> None:
    damaged = Verdict("a.mkv", reason="decoding failed (frame 12)", danger="open-GOP", cut=True)
    assert not can_be_mended(damaged)
    assert can_be_mended(replace(damaged, reason=None))
    assert can_be_mended(replace(damaged, reason="open-GOP"))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
def test_longer_or_later_sound_does_not_make_a_video_cut(
    kinds: Path, tmp_path: Path, suffix: str, late: bool
) -> None:
    path = tmp_path / f"sound.{suffix}"
    with av.open(str(kinds / "closed.mp4")) as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate=44100)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        begin = 10 * 44100 if late else 0
        for number in range(500):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, begin + 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    verdict = check_video(str(path), "pyav", 2, 0)
    assert (verdict.reason, verdict.frames, verdict.cut) == (None, 60, False)


@pytest.mark.parametrize("name", ["closed.ts", "open.m2ts", "closed.flv", "mpeg2.mpg", "mpeg2.vob"])
def test_files_without_an_index_are_sought_too(kinds: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that each clip is decoded from the start
        assert numbers(open_video(str(kinds / name)).frames(np.array([59]))) == [59]
    assert not check_video(str(kinds / name), "pyav", 8, 0).slow


SAY_IT = """
import sys, numpy as np
from salt_plugin.data import open_video
for _ in range(3):
    open_video(sys.argv[1]).frames(np.array([40]))
"""


def test_what_cannot_be_sought_is_said_once_with_the_line_that_mends_it(kinds: Path) -> None:
    path = str(kinds / "bframes.avi")
    command = [sys.executable, "-c", SAY_IT, path]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
    assert said.count("decoded from the start of the file") == 1
    assert f"ffmpeg -xerror -i {path} -map 0:0" in said
    assert check_video(path, "pyav", 2, 0).slow


def test_facts_are_found_once_and_kept_in_the_cache_of_the_user(
    kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "closed.mp4"
    path.write_bytes((kinds / "closed.mp4").read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fact_cache, "SLOW", -1.0)
    scans = []

    def visit() -> None:
        fact_cache._known.clear()  # as a new process
        for _ in range(2):
            assert numbers(open_video(str(path)).frames(np.array([50, 3]))) == [50, 3]

    def scanned(of: str) -> object:
        scans.append(of)
        return scan(of)

    monkeypatch.setattr(fact_cache, "scan", scanned)
    visit()
    visit()
    assert len(scans) == 1
    [kept] = (tmp_path / "cache").rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-7] + b"damaged")
    visit()
    visit()
    assert len(scans) == 2
    os.utime(path, (1, 1))
    visit()
    assert len(scans) == 3


@pytest.mark.parametrize("cache", ["/proc/none", None])
def test_no_cache_is_no_error(
    kinds: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/proc/none"))
    if cache:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(fact_cache, "SLOW", -1.0)
    fact_cache._known.clear()
    assert len(open_video(str(kinds / "closed.mp4"))) == 60


def test_a_long_read_that_goes_on_is_not_given_up(kinds: Path) -> None:
    def read() -> int:
        count = 0
        for _ in decode_all(str(kinds / "closed.mp4")):
            time.sleep(0.05)  # three seconds in all
            count += 1
        return count

    assert within(1.5, "a.mp4", read) == 60


def test_the_check_hears_from_a_long_file_that_goes_on(kinds: Path) -> None:
    path = str(kinds / "closed.mp4")

    def slowly() -> Verdict:
        for _ in decode_all(path):
            time.sleep(0.03)
        return Verdict(path)

    ours, theirs = multiprocessing.Pipe(duplex=False)
    checking._report(theirs, slowly)
    heard = []
    while ours.poll():
        heard.append(ours.recv())
    assert len(heard) > 2
    assert heard == [None] * (len(heard) - 1) + [Verdict(path)]


MEASURE = """
import sys, numpy as np
from salt_plugin.data import open_video
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
path, reader = sys.argv[1:]
open_video(path, reader).frames(np.array([0]))
before = peak()
open_video(path, reader).frames(3 + 4 * np.arange(16))
print((peak() - before) // 1024)
"""


@pytest.fixture(scope="module")
def large_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 70 frames of 1080p."""
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        frame = av.VideoFrame(1920, 1080, "yuv420p")
        for number in range(70):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# The clip is 95 MiB, which decord holds twice at the end, beside what its threads keep of frames.
@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_a_clip_of_1080p_adds_no_more_memory_than_promised(large_video: Path, reader: str) -> None:
    command = [sys.executable, "-c", MEASURE, str(large_video), reader]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 60 < int(found.stdout) < 400
