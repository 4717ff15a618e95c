"""H.264 files like those of web collections: 256 px, 10 s at 30 fps, a keyframe every second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

FPS, SECONDS, SIDE, VIDEOS = 30, 10, 256, 8


def textures(
    size: tuple[int, int], count: int, rng: np.random.Generator | None = None, grain: int = 16
) -> Iterator[np.ndarray]:
    """Yields frames of a texture of patches that drifts, uint8 [H, W, 3]; `grain` is in pixels."""
    height, width = size
    blocks = ((height + count) // grain + 2, (width + count // 2) // grain + 2, 3)
    small = (rng or np.random.default_rng(0)).integers(0, 256, blocks, dtype=np.uint8)
    texture = small.repeat(grain, 0).repeat(grain, 1)
    for t in range(count):
        yield np.ascontiguousarray(texture[t : t + height, t // 2 : t // 2 + width])


def make_videos(
    folder: Path,
    size: tuple[int, int] = (SIDE, SIDE),
    videos: int = VIDEOS,
    seconds: int = SECONDS,
) -> str:
    """Writes textures that drift, which compress as real video does; returns the folder.

    Args:
        folder: Where they are written.
        size: Height and width, in pixels.
        videos: Number of files.
        seconds: Of each.
    """
    rng = np.random.default_rng(0)
    for number in range(videos):
        options = {"g": str(FPS), "bf": "2", "flags": "+cgop", "preset": "veryfast"}
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            grain = 16 * size[0] // SIDE
            for frame in textures(size, FPS * seconds, rng, grain):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return str(folder)
