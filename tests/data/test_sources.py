from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from salt_plugin.commands import data
from salt_plugin.data.sources import VideoList, read_inputs, require_readable
from salt_plugin.errors import DataError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folder_with_classes(tmp_path: Path) -> None:
    _touch(tmp_path, "b/x/2.MP4", "b/1.avi", "a/3.webm", "4.mkv", "a/notes.txt", "empty/readme")
    _touch(tmp_path, "a/._3.webm", ".hidden/5.mp4")
    videos = read_inputs(str(tmp_path))
    assert videos.paths == [
        str(tmp_path / name) for name in ("4.mkv", "a/3.webm", "b/1.avi", "b/x/2.MP4")
    ]
    assert videos.classes == ["a", "b"]
    assert videos.labels == [-1, 0, 1, 1]
    assert videos.source == [0, 0, 0, 0]


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    videos = read_inputs(str(_touch(tmp_path, "b.mp4", "a.mp4")))
    assert videos.paths == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    assert (videos.labels, videos.classes) == ([-1, -1], None)


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    _touch(tmp_path / "far", "1.mp4")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "a").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "near")
    videos = read_inputs(str(tmp_path / "near"))
    assert videos.paths == [str(tmp_path / "near" / "a" / "1.mp4")]


def test_lists_and_links_lead_anywhere(tmp_path: Path) -> None:
    _touch(tmp_path / "far", "1.mp4", "deep/2.mp4")
    near = tmp_path / "near"
    near.mkdir()
    (near / "link.mp4").symlink_to("../far/1.mp4")
    (near / "more").symlink_to(tmp_path / "far" / "deep")
    assert read_inputs(near).paths == [str(near / "link.mp4"), str(near / "more" / "2.mp4")]
    (near / "list.csv").write_text(f"{tmp_path}/far/1.mp4 0\n../far/deep/2.mp4 1\nlink.mp4 2\n")
    found = read_inputs(near / "list.csv")
    assert found.paths == [f"{tmp_path}/far/1.mp4", f"{near}/../far/deep/2.mp4", f"{near}/link.mp4"]
    assert all(Path(path).is_file() for path in found.paths)


def test_what_is_left_out_is_said_by_suffix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(tmp_path, "a.mp4", "b/c.TS", "b/d.txt", "e.TXT", "f.json", "LICENSE", ".g.mp4", ".h/i")
    with caplog.at_level(logging.INFO):
        read_inputs(tmp_path)
    (line,) = caplog.messages
    assert f"input_dir={tmp_path}: 2 videos; left out: 2 .txt, 1 .json, 1 without a suffix" in line
    assert "hidden (their names begin with a dot): 2" in line
    _touch(tmp_path / "other", "a.rm")
    with pytest.raises(DataError, match=r"holds no videos: .*left out: 1 \.rm"):
        read_inputs(tmp_path / "other")


def test_parts_of_a_data_set_are_not_taken_for_classes_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sets = tmp_path / "sets"
    _touch(sets, "train/cat/1.mp4", "train/dog/2.mp4", "Val-256/cat/3.mp4", "Val-256/dog/4.mp4")
    with caplog.at_level(logging.WARNING):
        assert read_inputs(sets).classes == ["Val-256", "train"]
        (line,) = caplog.messages
        for part in ("'Val-256' and 'train'", "(cat, dog)", "2 classes", f"{sets}/"):
            assert part in line
        caplog.clear()
        read_inputs(sets / "train")
        _touch(tmp_path / "classes", "training/a/1.mp4", "valley/a/2.mp4", "walk/b/3.mp4")
        read_inputs(tmp_path / "classes")
        assert caplog.messages == []


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        (".flv", "flv", "flv1"),
        (".ts", "mpegts", "mpeg2video"),
        (".mts", "mpegts", "mpeg2video"),
        (".m2ts", "mpegts", "mpeg2video"),
        (".3gp", "3gp", "h263"),
        (".wmv", "asf", "wmv2"),
        (".vob", "vob", "mpeg2video"),
        (".ogv", "ogg", "libvpx"),
        (".m2v", "mpeg2video", "mpeg2video"),
    ],
)
def test_what_readers_accept_is_listed(
    tmp_path: Path, suffix: str, container: str, codec: str
) -> None:
    options = {"mpegts_m2ts_mode": "1"} if suffix == ".m2ts" else {}
    with av.open(str(tmp_path / f"film{suffix}"), "w", container, options=options) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
        for grey in range(0, 200, 25):
            picture = np.full((144, 176, 3), grey, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    videos = read_inputs(tmp_path)
    assert [Path(path).suffix for path in videos.paths] == [suffix]
    require_readable(videos)


def test_one_film_in_three_containers(
    shared_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [shared_videos / "reported" / f"base.{one}" for one in ("flv", "mp4", "ts")]
    for film in films:
        (tmp_path / film.name).symlink_to(film)
    data.main(["check", str(tmp_path), "--workers", "1", "--positions", "1"])
    assert "3 of 3 files can be trained on" in capsys.readouterr().out


def test_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\ufeffmy clips/a b.mp4 3\r\n\n/abs/c.mp4 -1\n  d.mp4 0  \n"
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("list.csv", str(tmp_path / "list.csv")):
        videos = read_inputs(name)
        assert videos.paths == [
            str(tmp_path / "my clips/a b.mp4"),
            "/abs/c.mp4",
            str(tmp_path / "d.mp4"),
        ]
        assert (videos.labels, videos.classes) == ([3, -1, 0], None)


def test_several_inputs_keep_their_source_and_share_class_numbers(tmp_path: Path) -> None:
    _touch(tmp_path, "one/b/1.mp4", "two/a/2.mp4", "two/b/3.mp4")
    videos = read_inputs([str(tmp_path / "one"), str(tmp_path / "two")])
    assert videos.classes == ["a", "b"]
    assert videos.labels == [1, 0, 1]
    assert videos.source == [0, 1, 1]


def test_folder_classes_beside_csv_labels_are_dropped(tmp_path: Path) -> None:
    _touch(tmp_path, "one/b/1.mp4")
    (tmp_path / "l.csv").write_text("x.mp4 4\n")
    videos = read_inputs([str(tmp_path / "one"), str(tmp_path / "l.csv")])
    assert (videos.labels, videos.classes, videos.source) == ([-1, -1], None, [0, 1])
    (tmp_path / "l.csv").write_text("x.mp4 -1\n")
    videos = read_inputs([str(tmp_path / "one"), str(tmp_path / "l.csv")])
    assert (videos.labels, videos.classes) == ([0, -1], ["b"])


def test_broken_csv_names_file_lines_and_format(tmp_path: Path) -> None:
    lines = ["ok.mp4 1", "comma.mp4,1", "float.mp4 1.5", "word.mp4 cat", "low.mp4 -2", "7"]
    (tmp_path / "bad.csv").write_text("\n".join([*lines, "bare.mp4"]))
    with pytest.raises(DataError) as caught:
        read_inputs(str(tmp_path / "bad.csv"))
    message = str(caught.value)
    for part in (
        "bad.csv has 6 broken lines",
        "line 2: 'comma.mp4,1'",
        "line 6: '7'",
        "path label",
    ):
        assert part in message
    assert "line 1:" not in message
    assert "line 7:" not in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no videos"),
        (lambda path: path.write_text("x"), "neither a folder nor a .csv"),
    ],
)
def test_unusable_inputs(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "input.d")
    with pytest.raises(DataError, match=message) as caught:
        read_inputs(str(tmp_path / "input.d"))
    assert "input.d" in str(caught.value)


def test_empty_and_binary_csv_and_empty_list(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("\n\n")
    with pytest.raises(DataError, match="lists no videos"):
        read_inputs(str(tmp_path / "empty.csv"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="UTF-8"):
        read_inputs(str(tmp_path / "binary.csv"))
    with pytest.raises(DataError, match="empty list"):
        read_inputs([])


def test_require_readable_needs_one_good_file(tiny_videos: Path, tmp_path: Path) -> None:
    bad = [str(tmp_path / f"{number}.mp4") for number in range(7)]
    Path(bad[0]).touch()
    with pytest.raises(DataError, match="none of the 7 videos") as caught:
        require_readable(VideoList(bad, [-1] * 7, None, [0] * 7))
    assert "0.mp4: the file is empty" in str(caught.value)
    assert "4.mp4: No such file" in str(caught.value)
    assert "5.mp4" not in str(caught.value)
    good = str(tiny_videos / "ant" / "0.mp4")
    require_readable(VideoList([*bad, good], [-1] * 8, None, [0] * 8))


def test_real_lists(shared_videos: Path) -> None:
    root = shared_videos / "ut_interaction"
    assert len(read_inputs(str(root / "train.csv")).paths) == 83
    assert set(read_inputs(str(root / "unlabelled.csv")).labels) == {-1}
    videos = read_inputs(str(root))
    assert len(videos.paths) == 218
    assert videos.classes is not None
    assert len(videos.classes) == 7
    require_readable(videos)
