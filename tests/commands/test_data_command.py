from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import av
import pytest
from video_kinds import BROKEN, CODECS, REFUSED

from salt_plugin.commands import data
from salt_plugin.data import read_inputs
from salt_plugin.data.check import Verdict, check_video, mending_line
from salt_plugin.data.checking import check_videos
from salt_plugin.errors import ConfigError

GOPS = {
    "single": {
        "h264.mp4", "h264_444.mp4", "h264_opengop.mp4", "h264_rot90.mp4", "h264_vfr.mp4",
        "hevc10.mp4", "hevc8.mp4",
    },
    "intra": {"h264_1frame.mp4"},
    "open": {"h264_opengop_g24.mp4", "hevc_opengop_g24.mp4", "mpeg4_bframes.avi"},
}  # fmt: skip


def _dies(path: str, reader: str, positions: int, seed: int) -> Verdict:
    os._exit(3)


def _run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    data.main(["check", *map(str, arguments), "--workers", "1", "--json"])
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


def test_lists_and_verdicts(
    mixed: Path, tiny_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, quarantine = mixed / "clean.csv", mixed / "bad.csv"
    lists = ["--clean", clean, "--quarantine", quarantine]
    found = _run(capsys, mixed / "list.csv", "--root", tiny_videos, *lists)
    assert (found["files"], found["clean"], found["quarantine"]) == (5, 3, 2)
    first, second, copy, *bad = found["verdicts"]
    assert (first["codec"], first["frames"], first["fps"], first["height"]) == ("h264", 20, 10, 64)
    assert first["seconds"] == pytest.approx(2)
    assert (copy["copy_of"], second["copy_of"]) == (first["path"], None)
    assert [verdict["reason"] for verdict in bad] == [
        "not a video file that PyAV can open",
        "the file is empty (0 bytes)",
    ]
    listed = read_inputs(str(clean), root=str(tiny_videos))
    assert listed.paths == [first["path"], second["path"], copy["path"]]
    assert listed.labels == [4, -1, 5]
    lines = quarantine.read_text().splitlines()
    assert lines[0] == "path,reason"
    assert lines[2] == f"{mixed / 'zero.mp4'},the file is empty (0 bytes)"


def test_text_says_what_is_wrong_and_how_to_mend(
    mixed: Path, kinds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mixed / "more.csv").write_text(f"{kinds / 'open.mp4'} 0\nzero.mp4 0\n")
    options = ["--workers", "1", "--short-side", "48", "--root", str(kinds)]
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
    line = mending_line("/a b/c.mkv", 48)
    assert "'/a b/c.mkv'" in line
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


@pytest.mark.parametrize("name", CODECS)
def test_verdicts_of_codecs(shared_videos: Path, name: str) -> None:
    verdict = check_video(str(shared_videos / "codecs" / name), "pyav", 2, 0)
    assert verdict.reason is None
    assert not verdict.cut
    expected = next((gop for gop, names in GOPS.items() if name in names), "closed")
    assert verdict.gop == expected
    if name in REFUSED:
        assert REFUSED[name] in str(verdict.danger)
    else:
        assert verdict.danger is None


@pytest.mark.parametrize("name", BROKEN)
def test_verdicts_of_broken_files(shared_videos: Path, name: str) -> None:
    verdict = check_video(str(shared_videos / "broken" / name), "pyav", 2, 0)
    if BROKEN[name] is None:
        assert (verdict.reason, verdict.cut) == (None, True)
    else:
        assert BROKEN[name] in str(verdict.reason)
