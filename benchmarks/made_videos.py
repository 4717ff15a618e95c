"""H.264 files like those of web collections: 256 px, 10 s at 30 fps, a keyframe every second."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

FPS, SECONDS, SIDE, VIDEOS = 30, 10, 256, 8


def make_videos(folder: Path) -> str:
    """Writes smooth textures that drift, which compress as real video does; returns the folder."""
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        small = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8).astype(np.float32)
        texture = np.kron(small, np.ones((16, 16, 1), np.float32))
        options = {"g": str(FPS), "bf": "2", "flags": "+cgop", "preset": "veryfast"}
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            for t in range(FPS * SECONDS):
                frame = texture[t : t + SIDE, t // 2 : t // 2 + SIDE].astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return str(folder)
