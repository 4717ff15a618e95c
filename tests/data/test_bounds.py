"""Files of strangers among the data: sizes that they state, and what is no file at all."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from salt_plugin.data import open_video, read_inputs
from salt_plugin.data.list_file import MAX_LINE
from salt_plugin.errors import DataError
from salt_plugin.video.images import ImageReader
from salt_plugin.video.reader import VideoReadError


def test_a_line_longer_than_any_path_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
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
    with pytest.raises(VideoReadError, match="no image of the formats"):
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
