from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from torch import Tensor

FRAMES = 60
SIDE = 64
KINDS = {
    "closed.mp4": ("libx264", {"g": "12", "bf": "2", "x264-params": "open-gop=0:scenecut=0"}),
    "open.mp4": (
        "libx264",
        {"g": "12", "bf": "2", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
    ),
    "hevc.mp4": (
        "libx265",
        {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:log-level=none"},
    ),
    "bframes.avi": ("mpeg4", {"g": "12", "bf": "2", "q": "2"}),
    "plain.avi": ("mpeg4", {"g": "12", "q": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2", "b": "4M"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8", "b": "1M"}),
}


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of each of `KINDS`, 60 frames; `numbers` reads them off the pixels."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, (codec, options) in KINDS.items():
        _write(folder / name, codec, options)
    return folder


def numbers(frames: Tensor) -> list[int]:
    """Returns which frames these are (uint8 [T, 3, 64, 64]): eight blocks are the bits."""
    blocks = frames.float().mean(1).reshape(-1, 2, 32, 4, 16).mean((2, 4)).reshape(-1, 8)
    return [int(sum(2**bit for bit in range(8) if row[bit] > 128)) for row in blocks]


def _write(path: Path, codec: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8).reshape(2, 4)
            grey = np.kron(40 + 170 * bits, np.ones((32, 16), np.uint8))
            picture = np.repeat(grey[..., None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
