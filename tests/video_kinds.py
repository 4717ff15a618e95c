"""Small videos of several codecs, and what is expected of the real files beside the checkout."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
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
    "closed.ts": ("libx264", {"g": "12", "bf": "2", "x264-params": "open-gop=0:scenecut=0"}),
    "open.m2ts": (
        "libx264",
        {"g": "12", "bf": "2", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
    ),
    "closed.flv": ("libx264", {"g": "12", "bf": "2", "x264-params": "open-gop=0:scenecut=0"}),
    "mpeg2.vob": ("mpeg2video", {"g": "12", "bf": "2", "b": "4M"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8", "b": "1M"}),
}

# What decord refuses, because it returns other frames than asked for, and says nothing.
REFUSED = {
    "av1.mp4": "av1",
    "av1_g24.mp4": "av1",
    "h264_opengop_g24.mp4": "open-GOP h264",
    "hevc10.mp4": "hevc",
    "hevc8.mp4": "hevc",
    "hevc_opengop_g24.mp4": "hevc",
    "mpeg2.mpg": "mpeg2video",
    "mpeg4_bframes.avi": "mpeg4",
}
CODECS = (
    *REFUSED,
    "h264.mp4",
    "h264_1frame.mp4",
    "h264_444.mp4",
    "h264_audio.mp4",
    "h264_g24.mp4",
    "h264_opengop.mp4",
    "h264_rot90.mp4",
    "h264_vfr.mp4",
    "mpeg4.avi",
    "vp8.webm",
    "vp9.webm",
    "vp9_g24.webm",
)
# Why a broken file, decoded whole, is refused; None where every frame that it has is right.
BROKEN = {
    "audio_only.mp4": "no video stream",
    "bitflips_mdat.mp4": "decoding failed",
    "bitflips_moov.mp4": "no video stream",
    "decord_corrupted.mp4": "decoding failed",
    "random.mp4": "not a video",
    "text.mp4": "not a video",
    "trunc_5pct_faststart.mp4": "decoding failed",
    "trunc_half.avi": None,
    "trunc_half.webm": None,
    "trunc_half_faststart.mp4": None,
    "trunc_head_nomoov.mp4": "not a video",
    "zero.avi": "empty",
    "zero.mp4": "empty",
    "zeroed_middle.mp4": "decoding failed",
}
# Frames of those that were cut.
USABLE = {"trunc_half.avi": 120, "trunc_half.webm": 120, "trunc_half_faststart.mp4": 102}
WHOLE = {"avi": "mpeg4.avi", "webm": "vp9.webm", "mp4": "h264.mp4"}


def numbers(frames: Tensor) -> list[int]:
    """Returns which frames these are (uint8 [T, 3, 64, 64]): eight blocks are the bits."""
    blocks = frames.float().mean(1).reshape(-1, 2, 32, 4, 16).mean((2, 4)).reshape(-1, 8)
    return [int(sum(2**bit for bit in range(8) if row[bit] > 128)) for row in blocks]


def pixels(number: int) -> np.ndarray:
    """Returns the frame of a number, uint8 [64, 64, 3]."""
    bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8).reshape(2, 4)
    grey = np.kron(40 + 170 * bits, np.ones((32, 16), np.uint8))
    return np.repeat(grey[..., None], 3, axis=2)


def write_kind(path: Path, codec: str, options: dict[str, str], muxer: str = "") -> None:
    settings = dict(part.split("=") for part in muxer.split())
    with av.open(str(path), "w", options=settings) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(pixels(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
