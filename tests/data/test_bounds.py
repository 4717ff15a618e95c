"""Files of strangers among the data: where lists and links lead, and sizes that files state."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from salt_plugin.data.bounds import MAX_LINE

from salt_plugin.commands import data
from salt_plugin.config import compose, load_config, probe_config
from salt_plugin.data import open_video, read_inputs
from salt_plugin.data.images import ImageReader
from salt_plugin.data.reader import VideoReadError
from salt_plugin.data.stream import training_videos
from salt_plugin.errors import DataError
from salt_plugin.evaluation.lists import read_lists


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Folders `mine`, `other` and `mine2`, each with a file of the name 1.mp4."""
    for name in ("mine", "other", "mine2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.mp4").touch()
    return tmp_path


def listed(places: Path, *paths: str | Path) -> str:
    file = places / "mine" / "list.csv"
    file.write_text("".join(f"{path} 0\n" for path in paths))
    return str(file)


def test_a_list_leads_to_files_in_its_folder(places: Path) -> None:
    mine = places / "mine"
    (mine / "link.mp4").symlink_to("1.mp4")
    (mine / "deeper").symlink_to(".")
    inside = ["1.mp4", mine / "1.mp4", "link.mp4", "x/../1.mp4", "deeper/1.mp4", "gone.mp4"]
    assert len(read_inputs(listed(places, *inside)).paths) == 6


@pytest.mark.parametrize(
    "path", ["../other/1.mp4", "{}/other/1.mp4", "{}/mine2/1.mp4", "link.mp4", "far/1.mp4", ".."]
)
def test_and_no_further(places: Path, path: str) -> None:
    mine, other = places / "mine", places / "other"
    (mine / "link.mp4").symlink_to(other / "1.mp4")
    (mine / "far").symlink_to(other)
    file = listed(places, "1.mp4", path.format(places))
    with pytest.raises(DataError) as caught:
        read_inputs(file)
    message = str(caught.value)
    for part in ("list.csv names 1 of 2 files outside of", "line 2:", "method.data.root=/ allows"):
        assert part in message
    assert len(read_inputs(file, root="/").paths) == 2
    assert len(read_inputs(file, root=str(places)).paths) == 2


def test_the_error_says_which_folder_to_allow(places: Path) -> None:
    file = listed(places, places / "other" / "1.mp4", places / "other" / "b" / "2.mp4")
    with pytest.raises(DataError, match=rf"method\.data\.root={places}/other; ") as caught:
        read_inputs(file)
    assert len(read_inputs(file, root=str(places / "other")).paths) == 2
    with pytest.raises(DataError, match=r"names 2 of 2 files outside"):
        read_inputs(file, root=str(places / "mine2"))
    with pytest.raises(DataError, match=r"method\.data\.root=nowhere is no folder"):
        read_inputs(file, root="nowhere")
    assert len(str(caught.value)) < 1000


def test_a_folder_may_be_a_link_and_links_in_it_stay_inside(places: Path) -> None:
    (places / "videos").symlink_to(places / "mine")
    assert len(read_inputs(str(places / "videos")).paths) == 1
    (places / "mine" / "2.mp4").symlink_to(places / "other" / "1.mp4")
    (places / "mine" / "more").symlink_to(places / "mine2")
    with pytest.raises(DataError) as caught:
        read_inputs(str(places / "videos"))
    message = str(caught.value)
    assert "has 2 links that lead outside" in message
    assert f"2.mp4 -> {places / 'other' / '1.mp4'}" in message
    assert len(read_inputs(str(places / "videos"), root=str(places)).paths) == 3


def test_every_entry_has_the_key(tiny_videos: Path, places: Path) -> None:
    train = listed(places, tiny_videos / "ant" / "0.mp4", tiny_videos / "bee" / "0.mp4")
    keys = ["method=pixel_teacher", f"input_dir={train}"]
    with pytest.raises(DataError, match=rf"method\.data\.root={tiny_videos}"):
        training_videos(load_config(compose(keys)))
    found = training_videos(load_config(compose([*keys, f"method.data.root={tiny_videos}"])))
    assert len(found.paths) == 2
    (places / "mine" / "train.csv").write_text(
        f"{tiny_videos / 'ant' / '0.mp4'} 0\n{tiny_videos / 'bee' / '0.mp4'} 1\n"
    )
    lists = {key: str(places / "mine" / "train.csv") for key in ("train", "test")}
    with pytest.raises(DataError, match=rf"--root {tiny_videos} "):
        read_lists(probe_config(**lists))
    assert len(read_lists(probe_config(**lists, root=str(tiny_videos))).train.paths) == 2
    (places / "probe.yaml").write_text(json.dumps({**lists, "root": str(tiny_videos)}))
    assert len(read_lists(probe_config(str(places / "probe.yaml"))).test.paths) == 2


def test_a_clean_list_elsewhere_says_how_to_train_on_it(
    tiny_videos: Path, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=rf"--root {tiny_videos}"):
        data.main(["check", listed(places, tiny_videos / "ant" / "0.mp4")])
    clean = places / "clean.csv"
    options = ["--clean", str(clean), "--workers", "1", "--positions", "1", "--json"]
    data.main(["check", str(tiny_videos), *options])
    assert f"method.data.root={tiny_videos}" in capsys.readouterr().err
    assert len(read_inputs(str(clean), root=str(tiny_videos)).paths) == 6


def test_a_line_longer_than_any_path_is_not_read(places: Path) -> None:
    file = places / "mine" / "list.csv"
    with file.open("w") as opened:
        opened.write("1.mp4 0\n")
        opened.truncate(2**33)
    with pytest.raises(DataError, match=rf"line 2 has more than {MAX_LINE} characters"):
        read_inputs(str(file))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=r"list\.csv .*no regular file"):
        read_inputs(str(file))


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(2**20))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9000, 60000, 2**31 - 1])
def test_the_size_of_an_image_is_checked_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "large.png").write_bytes(_png(side, side))
    with pytest.raises(VideoReadError, match=r"large\.png: .*(67108864 pixels|exceeds limit)"):
        ImageReader(str(tmp_path / "large.png"))


def test_images_are_of_the_kinds_that_pillow_reads_by_itself(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(VideoReadError, match="cannot identify image file"):
        ImageReader(str(tmp_path / "picture.png"))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(VideoReadError, match="a pipe"):
        ImageReader(str(tmp_path / "pipe.png"))
    Image.new("RGB", (8, 6)).save(tmp_path / "good.png")
    assert ImageReader(str(tmp_path / "good.png")).size == (6, 8)


@pytest.mark.parametrize("side", [9000, 60000])
@pytest.mark.parametrize("header", [True, False])
def test_the_size_of_a_video_is_checked_before_it_is_decoded(
    tmp_path: Path, side: int, header: bool
) -> None:
    path = tmp_path / "large.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    if header:
        struct.pack_into("<ii", content, content.index(b"strf") + 12, side, side)
    struct.pack_into(">HH", content, content.index(b"\xff\xc0\x00\x11\x08") + 5, side, side)
    path.write_bytes(content)
    for reader in ("pyav", "auto"):
        with pytest.raises(VideoReadError, match=r"67108864 pixels|decoding failed"):
            open_video(str(path), reader).frames(np.zeros(1, np.int64))
