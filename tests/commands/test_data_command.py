from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import av
import pytest
from video_kinds import REFUSED

from salt_plugin.commands import data
from salt_plugin.data import read_inputs
from salt_plugin.data.checking import check_videos
from salt_plugin.errors import ConfigError
from salt_plugin.video.check import Verdict, check_video
from salt_plugin.video.mending import mending_line

# What is expected of each file beside the checkout: codec, container, GOP kind, frames, frames a
# second, seconds that it states. `REFUSED` says which of them are not for decord.
GOOD = {
    "av1.mp4": ("av1", "mov", "closed", 240, 24, 10),
    "av1_g24.mp4": ("av1", "mov", "closed", 240, 24, 10),
    "h264.mp4": ("h264", "mov", "single", 240, 24, 10),
    "h264_1frame.mp4": ("h264", "mov", "intra", 1, 24, 0.0417),
    "h264_444.mp4": ("h264", "mov", "single", 240, 24, 10),
    "h264_audio.mp4": ("h264", "mov", "closed", 300, 29.97, 10.01),
    "h264_g24.mp4": ("h264", "mov", "closed", 240, 24, 10),
    "h264_opengop.mp4": ("h264", "mov", "single", 240, 24, 10),  # one GOP: open to nothing
    "h264_opengop_g24.mp4": ("h264", "mov", "open", 240, 24, 10),
    "h264_rot90.mp4": ("h264", "mov", "single", 240, 24, 10),
    "h264_vfr.mp4": ("h264", "mov", "single", 154, 15.148, 10),
    "hevc10.mp4": ("hevc", "mov", "single", 240, 24, 10),
    "hevc8.mp4": ("hevc", "mov", "single", 240, 24, 10),
    "hevc_opengop_g24.mp4": ("hevc", "mov", "open", 240, 24, 10),
    "mpeg2.mpg": ("mpeg2video", "mpeg", "closed", 240, 24, 10),
    "mpeg4.avi": ("mpeg4", "avi", "closed", 240, 24, 10),
    "mpeg4_bframes.avi": ("mpeg4", "avi", "open", 240, 24, 10),
    "vp8.webm": ("vp8", "matroska", "closed", 240, 24, 10),
    "vp9.webm": ("vp9", "matroska", "closed", 240, 24, 10),
    "vp9_g24.webm": ("vp9", "matroska", "closed", 240, 24, 10),
    "trunc_half.avi": ("mpeg4", "avi", "closed", 120, 24, 5),
    "trunc_half_faststart.mp4": ("h264", "mov", "single", 102, 24, 10),
    "trunc_half.webm": ("vp9", "matroska", "single", 120, 24, 10),  # cut between two packets
}
CUT = ("trunc_half.avi", "trunc_half_faststart.mp4")  # within a packet
BAD = {
    "audio_only.mp4": "no video stream that PyAV can decode",
    "bitflips_mdat.mp4": "decoding failed: Invalid data found when processing input",
    "bitflips_moov.mp4": "no video stream that PyAV can decode",
    "decord_corrupted.mp4": "decoding failed: Invalid data found when processing input",
    "random.mp4": "not a video file that PyAV can open",
    "text.mp4": "not a video file that PyAV can open",
    "trunc_5pct_faststart.mp4": "decoding failed: Invalid data found when processing input",
    "trunc_head_nomoov.mp4": "not a video file that PyAV can open",
    "zero.avi": "the file is empty (0 bytes)",
    "zero.mp4": "the file is empty (0 bytes)",
    "zeroed_middle.mp4": "decoding failed: Invalid data found when processing input",
}


def _dies(path: str, reader: str, positions: int, seed: int) -> Verdict:
    os._exit(3)


def _run(
    capsys: pytest.CaptureFixture[str], *arguments: str | Path, workers: int = 1
) -> dict[str, Any]:
    data.main(["check", *map(str, arguments), "--workers", str(workers), "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


@pytest.fixture
def mixed(tiny_videos: Path, tmp_path: Path) -> Path:
    """A list of two good files, a copy of the first, a text and an empty file."""
    good = tiny_videos / "ant" / "2.mp4"
    (tmp_path / "copy of it.mp4").write_bytes(good.read_bytes())
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "zero.mp4").touch()
    lines = [f"{good} 4", f"{tiny_videos / 'bee' / '0.mp4'} -1", "copy of it.mp4 5"]
    (tmp_path / "list.csv").write_text("\n".join([*lines, "text.mp4 0", "zero.mp4 0"]))
    return tmp_path


def test_lists_and_verdicts(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, quarantine = mixed / "clean.csv", mixed / "bad.csv"
    lists = ["--clean", clean, "--quarantine", quarantine]
    found = _run(capsys, mixed / "list.csv", *lists)
    assert (found["files"], found["clean"], found["quarantine"]) == (5, 3, 2)
    first, second, copy, *bad = found["verdicts"]
    assert (first["codec"], first["frames"], first["fps"], first["height"]) == ("h264", 20, 10, 64)
    assert first["seconds"] == pytest.approx(2)
    assert (copy["copy_of"], second["copy_of"]) == (first["path"], None)
    assert [verdict["reason"] for verdict in bad] == [
        "not a video file that PyAV can open",
        "the file is empty (0 bytes)",
    ]
    listed = read_inputs(str(clean))
    assert listed.paths == [first["path"], second["path"], copy["path"]]
    assert listed.labels == [4, -1, 5]
    lines = quarantine.read_text().splitlines()
    assert lines[0] == "path,reason"
    assert lines[2] == f"{mixed / 'zero.mp4'},the file is empty (0 bytes)"


def test_text_says_what_is_wrong_and_how_to_mend(
    mixed: Path, kinds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mixed / "more.csv").write_text(f"{kinds / 'open.mp4'} 0\nzero.mp4 0\n")
    options = ["--workers", "1", "--short-side", "48"]
    data.main(["check", str(mixed / "more.csv"), *options])
    out = capsys.readouterr().out
    for part in (
        "1 h264 in mov, GOP open",
        "1 of 2 files can be trained on",
        "zero.mp4: the file is empty",
        "not for decord: 1",
        f"ffmpeg -xerror -i {kinds / 'open.mp4'}",
        "min(48,iw)",
    ):
        assert part in out


@pytest.mark.parametrize(("size", "expected"), [((64, 90), (48, 68)), ((50, 33), (48, 32))])
def test_mending_keeps_the_shape_and_makes_even_sides(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    line = mending_line("/a b/c.mkv", 48, 1)
    assert "'/a b/c.mkv' -map 0:1 " in line
    assert "'/a b/c.mended.mp4'" in line
    graph = av.filter.Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format="yuv420p", time_base=1)
    scale = graph.add("scale", line.split('"')[1].removeprefix("scale="))
    sink = graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(sink)
    graph.configure()
    graph.push(av.VideoFrame(*size, "yuv420p"))
    frame = graph.pull()
    assert (frame.width, frame.height) == expected


def test_what_a_reader_refuses_is_quarantined(kinds: Path) -> None:
    path = str(kinds / "open.mp4")
    assert check_video(path, "pyav", 4, 0).reason is None
    assert check_video(path, "auto", 4, 0).reason is None
    refused = check_video(path, "decord", 4, 0)
    assert refused.reason is not None
    assert "open-GOP h264" in refused.reason


def test_a_process_that_dies_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salt_plugin.data.checking.check_video", _dies)
    verdicts = check_videos(
        ["a.mp4"], reader="pyav", positions=1, seed=0, workers=1, timeout=60, done=lambda: None
    )
    assert verdicts[0].reason == "reading it kills the process (3)"


def test_the_input_is_not_written_over(mixed: Path) -> None:
    before = (mixed / "list.csv").read_text()
    with pytest.raises(ConfigError, match="different files"):
        data.main(["check", str(mixed / "list.csv"), "--clean", str(mixed / "list.csv")])
    assert (mixed / "list.csv").read_text() == before


@pytest.mark.slow
def test_every_shared_file_has_the_verdict_that_is_stated_here(
    shared_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for name in ("codecs", "broken") for path in (shared_videos / name).iterdir()]
    assert {path.name for path in files} == GOOD.keys() | BAD.keys()
    (tmp_path / "all.csv").write_text("".join(f"{path} -1\n" for path in sorted(files)))
    clean, quarantine = tmp_path / "clean.csv", tmp_path / "bad.csv"
    lists = ("--clean", clean, "--quarantine", quarantine)
    found = _run(capsys, tmp_path / "all.csv", *lists, workers=2)
    assert (found["files"], found["clean"], found["quarantine"]) == (34, 23, 11)
    of = {Path(verdict["path"]).name: verdict for verdict in found["verdicts"]}
    for name, (codec, container, gop, frames, fps, seconds) in GOOD.items():
        verdict = of[name]
        assert verdict["reason"] is None, name
        told = tuple(verdict[key] for key in ("codec", "container", "gop", "frames"))
        assert told == (codec, container, gop, frames), name
        assert verdict["fps"] == pytest.approx(fps, rel=1e-3), name
        assert verdict["seconds"] == pytest.approx(seconds, rel=1e-2), name
        assert verdict["cut"] == name.startswith("trunc_half"), name
        assert (verdict["damage"] is None) == (name not in CUT), name
        assert REFUSED.get(name, "") in (verdict["danger"] or ""), name
        assert (verdict["danger"] is None) == (name not in {*REFUSED, *CUT}), name
        # The same stream: only its rotation differs.
        copied = of["h264.mp4"]["path"] if name == "h264_rot90.mp4" else None
        assert verdict["copy_of"] == copied, name
    # At which frame it is noticed is for FFmpeg to say.
    assert {name: of[name]["reason"].partition(" (frame")[0] for name in BAD} == BAD
    listed = [Path(line.rpartition(" ")[0]).name for line in clean.read_text().splitlines()]
    assert sorted(listed) == sorted(GOOD)
    with quarantine.open(newline="") as file:
        rows = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert rows == {name: of[name]["reason"] for name in BAD}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REFUSED, *BAD])
def test_for_decord_what_it_cannot_read_exactly_is_refused_too(
    shared_videos: Path, name: str
) -> None:
    folder = "codecs" if name in REFUSED else "broken"
    verdict = check_video(str(shared_videos / folder / name), "decord", 2, 0)
    assert REFUSED.get(name, "") in str(verdict.reason)
    assert verdict.reason is not None


def test_a_bar_shows_the_progress_and_processes_work_side_by_side(
    tiny_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.main(["check", str(tiny_videos), "--workers", "3", "--positions", "1"])
    captured = capsys.readouterr()
    assert "checking" in captured.err
    assert "100%" in captured.err
    assert "6 of 6 files can be trained on" in captured.out
    assert "10 to 10 frames/s, 0.00 hours in good files" in captured.out
