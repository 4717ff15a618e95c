from __future__ import annotations

from pathlib import Path

import pytest

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
    videos = read_inputs(str(tmp_path / "near"), root=str(tmp_path / "far"))
    assert videos.paths == [str(tmp_path / "near" / "a" / "1.mp4")]


def test_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\ufeffmy clips/a b.mp4 3\r\n\n/abs/c.mp4 -1\n  d.mp4 0  \n"
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("list.csv", str(tmp_path / "list.csv")):
        videos = read_inputs(name, root="/")
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
