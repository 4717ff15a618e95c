"""H.264 files like those of web collections: 256 px, 10 s at 30 fps, a keyframe every second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

FPS, SECONDS, SIDE, VIDEOS = 30, 10, 256, 8


def textures(
    size: tuple[int, int], count: int, rng: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """Yields frames of a smooth texture that drifts, uint8 [H, W, 3]."""
    height, width = size
    blocks = ((height + count) // 16 + 2, (width + count // 2) // 16 + 2, 3)
    small = (rng or np.random.default_rng(0)).integers(0, 256, blocks, dtype=np.uint8)
    texture = small.repeat(16, 0).repeat(16, 1)
    for t in range(count):
        yield np.ascontiguousarray(texture[t : t + height, t // 2 : t // 2 + width])


def make_videos(folder: Path) -> str:
    """Writes smooth textures that drift, which compress as real video does; returns the folder."""
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        options = {"g": str(FPS), "bf": "2", "flags": "+cgop", "preset": "veryfast"}
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            for frame in textures((SIDE, SIDE), FPS * SECONDS, rng):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return str(folder)
