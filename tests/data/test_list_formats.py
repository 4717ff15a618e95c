"""Lists of videos as people write them, and what is said of how they were read."""

from __future__ import annotations

import logging
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from salt_plugin.commands import data
from salt_plugin.data import read_inputs
from salt_plugin.errors import DataError

Found = tuple[list[str], list[int], list[str] | None]


def listed(folder: Path, text: str, *files: str, name: str = "list.csv") -> Found:
    """Reads a list beside some files, with paths relative to its folder."""
    for file in files:
        (folder / file).touch()
    (folder / name).write_text(text)
    videos = read_inputs(folder / name)
    return [os.path.relpath(path, folder) for path in videos.paths], videos.labels, videos.classes


@pytest.mark.parametrize(
    ("text", "paths", "labels", "classes"),
    [
        ("a b.mp4 3\nc.mp4 -1\n", ["a b.mp4", "c.mp4"], [3, -1], None),
        ("a,b.mp4 3\nclips/7 4\n", ["a,b.mp4", "clips/7"], [3, 4], None),
        ("a.mp4,3\nmy b.mp4,4\n", ["a.mp4", "my b.mp4"], [3, 4], None),
        ("a.mp4, 3\nb.mp4, 4\n", ["a.mp4", "b.mp4"], [3, 4], None),
        ("a.mp4;3\nb.mp4;-1\n", ["a.mp4", "b.mp4"], [3, -1], None),
        ("a.mp4\t3\nmy b.mp4\t4\n", ["a.mp4", "my b.mp4"], [3, 4], None),
        ("clips/1,3\nclips/2,4\n", ["clips/1", "clips/2"], [3, 4], None),
        ('"a, b.mp4",3\n"c ""d"".mp4",4\n', ["a, b.mp4", 'c "d".mp4'], [3, 4], None),
        ('"my a.mp4" 3\nb.mp4 4\n', ["my a.mp4", "b.mp4"], [3, 4], None),
        ("path,label\na.mp4,3\n", ["a.mp4"], [3], None),
        ("path label\nmy a.mp4 3\n", ["my a.mp4"], [3], None),
        ("label,path\n3,a.mp4\n4,b.mp4\n", ["a.mp4", "b.mp4"], [3, 4], None),
        (",path,label\n0,a.mp4,3\n1,b.mp4,4\n", ["a.mp4", "b.mp4"], [3, 4], None),
        ("id,time,label\nx,1,3\ny,2,4\n", ["x", "y"], [3, 4], None),
        ("a.mp4,3,train\nb.mp4,4,val\n", ["a.mp4", "b.mp4"], [3, 4], None),
        ("a.mp4\nmy b.AVI\n", ["a.mp4", "my b.AVI"], [-1, -1], None),
        ("path\na.mp4\n", ["a.mp4"], [-1], None),
        ("a.mp4,\nb.mp4,2\n", ["a.mp4", "b.mp4"], [-1, 2], None),
        ("Label,Video Path\n3,a.mp4\n", ["a.mp4"], [3], None),
        ("class;clip\ncat;a.mp4\ndog;b.mp4\n", ["a.mp4", "b.mp4"], [0, 1], ["cat", "dog"]),
        ("name,path,label\nx,a.mp4,1\n", ["a.mp4"], [1], None),
        ("path,group,label\na.mp4,g1,1\n", ["a.mp4"], [1], None),
        ("a.mp4,class 2\nb.mp4,class 1\n", ["a.mp4", "b.mp4"], [1, 0], ["class 1", "class 2"]),
        ("video,class\na.mp4,big dog\nb.mp4,\n", ["a.mp4", "b.mp4"], [0, -1], ["big dog"]),
    ],
)
def test_what_is_clear_is_read(
    tmp_path: Path, text: str, paths: list[str], labels: list[int], classes: list[str] | None
) -> None:
    for name in ("list.csv", "list.txt", "list.tsv"):
        assert listed(tmp_path, text, name=name) == (paths, labels, classes)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.mp4 3 train\nb.mp4 4 val\n", ["2 broken lines", "line 1: 'a.mp4 3 train'"]),
        ("a.mp4 dog\nb.mp4 cat\n", ["2 broken lines", "line 1: 'a.mp4 dog'"]),
        ("a.mp4,train,3\nb.mp4,val,4\n", ["column 2 or 3 may be the label", "line 2:"]),
        ("a.mp4,120,5\nb.mp4,90,4\n", ["column 2 or 3 may be the label"]),
        ("Datei,Klasse\na.mp4,hund\nb.mp4,katze\n", ["line 1 looks like"]),
        ("a.mp4\nb.mp4\nc.mp4 2\n", ["1 broken line", "line 3: 'c.mp4 2'"]),
        ("label path\n3 a.mp4\n4 b.mp4\n", ["more than one way"]),
        ("a.mp4 1,2\nb.mp4 3,4\n", ["broken lines"]),
        ("cat,a.mp4\ndog,b.mp4\n", ["more than one way", "line 1: 'cat,a.mp4'"]),
        ("0 a.mp4\n1 b.mp4\n", ["more than one way", "line 2: '1 b.mp4'"]),
        ("a.mp4,1\nb.mp4,cat\n", ["1 broken line", "line 2: 'b.mp4,cat'", "separator ','"]),
        ("a.mp4,cat\nb.mp4,1\n", ["1 broken line", "line 2: 'b.mp4,1'"]),
        ("a.mp4,1\nb, c.mp4,2\n", ["1 broken line", "line 2:", "double quotes"]),
        ('a.mp4,1\n"b.mp4,2\n', ["1 broken line", "line 2:"]),
        ("some words of text\nand more\n", ["2 broken lines", "line 1:"]),
        ("path,label\n", ["only a header"]),
    ],
)
def test_what_is_not_clear_is_one_error(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        listed(tmp_path, text)
    for part in [*parts, "list.csv", "Expected" if "header" not in parts[0] else "expected"]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path,label,split\na.mp4,3,train\n",
            "1 videos, separator ',', header 'path,label,split' skipped, column 3 not used",
        ),
        ("a.mp4 3\nb.mp4 4\n", "2 videos, separator ' '"),
        ("a.mp4\n", "1 videos, a path a line, no labels"),
        ("a.mp4\tcat\n", r"1 videos, separator '\t', labels are names"),
        ("label;file\n3;a.mp4\n", "path in column 2, label in column 1"),
    ],
)
def test_the_log_says_what_was_understood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    with caplog.at_level(logging.INFO):
        listed(tmp_path, text)
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'list.csv'}: ")
    assert said in line


def test_commands_say_it_on_standard_error(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f'"{path}",cat,x' for path in sorted(tiny_videos.rglob("*.mp4"))]
    (tmp_path / "mine.tsv").write_text("\n".join(["file,label,more", *rows]))
    clean = tmp_path / "clean.csv"
    options = ["--workers", "1", "--positions", "1", "--clean", str(clean)]
    data.main(["check", str(tmp_path / "mine.tsv"), *options])
    captured = capsys.readouterr()
    assert "6 of 6 files can be trained on" in captured.out
    assert "mine.tsv: 6 videos, separator ',', header 'file,label,more' skipped" in captured.err
    assert read_inputs(clean).paths == read_inputs(tmp_path / "mine.tsv").paths


def test_a_single_video_is_an_input(tiny_videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tiny_videos / "ant" / "1.mp4"
    found = read_inputs([str(video), str(tiny_videos / "bee")])
    assert found.paths[0] == str(video)
    assert (found.labels, found.source) == ([-1, -1, -1, -1], [0, 1, 1, 1])
    data.main(["check", str(video), "--workers", "1", "--positions", "1"])
    assert "1 of 1 files can be trained on" in capsys.readouterr().out


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "excel.txt").write_text("a.mp4\t3\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"excel\.txt.*UTF-16; save it as UTF-8"):
        read_inputs(tmp_path / "excel.txt")


def _long_list(file: Path, lines: int) -> Path:
    rows = (f"/videos/class_{n % 700}/clip_{n:09d}.mp4,{n % 700}\n" for n in range(lines))
    file.write_text("".join(rows))
    return file


def test_a_long_list_takes_little_time_and_memory(tmp_path: Path) -> None:
    file = _long_list(tmp_path / "long.csv", 200_000)
    start = time.process_time()
    assert len(read_inputs(file).paths) == 200_000
    assert time.process_time() - start < 5  # takes 0.5 on a quiet machine
    file = _long_list(tmp_path / "less.csv", 20_000)
    tracemalloc.start()
    try:
        found = read_inputs(file)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A path of 38 letters takes 87 bytes, its places in three lists 24.
    assert most < 200 * len(found.paths) + 2**20
