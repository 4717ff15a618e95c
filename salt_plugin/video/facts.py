"""Facts of the video stream of a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class VideoFacts:
    """The video stream of a file.

    Attributes:
        codec: Its name in FFmpeg, such as `h264`.
        container: First name of the file's format in FFmpeg, such as `mov`.
        stream: Its index in the file.
        size: Height and width of the first frame as coded, in pixels.
        turn: How frames are turned upright: whether rows become columns, then whether columns are
            reversed, then whether rows are.
        fps: Average frame rate in frames per second, 0 where the file does not tell.
        seconds: Duration that the file states for it, 0 where it states none.
        tick: Unit of time stamps, in seconds.
        pts_n: Time stamps of the frames in order of display, int64 [n], in ticks; where the file
            has none that can be used, their numbers.
        keys_k3: Keyframes in order of display, int64 [k, 3]: time stamps for display and decoding,
            and the place of the packet in the file, -1 where unknown.
        gop: `intra`, `closed`, `open`, or `single`: keyframes, and whether frames reach over them.
        seekable: Whether a frame is reached from the keyframe before it, rather than from the start
            of the file.
        danger: Why decord must not read the file; empty where it may, as far as packets tell.
        damage: From which frame on the file is damaged, as a text; empty for none. The frames
            are those before it.
        short: Whether it ends well before the file's header says.
    """

    codec: str
    container: str
    stream: int
    size: tuple[int, int]
    turn: tuple[bool, bool, bool]
    fps: float
    seconds: float
    tick: float
    pts_n: np.ndarray
    keys_k3: np.ndarray
    gop: str
    seekable: bool
    danger: str
    damage: str
    short: bool

    @cached_property
    def times(self) -> np.ndarray:
        """Time stamps of the frames in seconds, float64 [n], increasing."""
        return self.pts_n * self.tick

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return 1024 + 2 * self.pts_n.nbytes + self.keys_k3.nbytes
