"""What is known of a video file: one record, and how it is kept as bytes."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

# Raised with every change of the record or of how it is found: older ones are found again.
VERSION = 3
_ARRAYS = ("pts_n", "keys_k4")


@dataclass(frozen=True)
class VideoFacts:
    """The video stream of a file.

    Attributes:
        codec: Its name in FFmpeg, such as `h264`.
        container: First name of the file's format in FFmpeg, such as `mov`.
        stream: Its index in the file.
        videos: Number of video streams, attached pictures included.
        size: Height and width of the first frame as coded, in pixels.
        turn: How frames are turned upright: whether rows become columns, then whether columns are
            reversed, then whether rows are.
        quarter: Whether a turn by whole quarters is all that the file asks for: no mirror, no other
            angle.
        fps: Average frame rate in frames per second, 0 where the file does not tell.
        seconds: Duration that the file states for it, 0 where it states none.
        time_base: Numerator and denominator of a unit of time, in seconds.
        pts_n: Time stamps of the frames in order of display, int64 [n], in `time_base`.
        keys_k4: Keyframes in order of display, int64 [k, 4]: time stamps for display and decoding,
            and for files that are sought by bytes the place of the packet, -1 where unknown, and
            the one from which reading has to start.
        leading: Frames shown before the keyframe that precedes them in the file, those that are
            left out before the first one, and keyframes after which H.264 may still need the
            frames before.
        discarded: Packets that the file's edit list leaves out.
        sought: How a frame is reached: `index` and `bytes` lead to the keyframe before it, `start`
            decodes from the start.
        primed: Whether the decoder needs the first packet before any other.
        resized: Whether its header says that the frame size changes inside the stream.
        interlaced: Whether the first frame consists of two fields.
        damage: From which frame on the file is damaged, as a text; empty for none. The frames
            are those before it.
        short: Whether it ends well before the file's header says.
    """

    codec: str
    container: str
    stream: int
    videos: int
    size: tuple[int, int]
    turn: tuple[bool, bool, bool]
    quarter: bool
    fps: float
    seconds: float
    time_base: tuple[int, int]
    pts_n: np.ndarray
    keys_k4: np.ndarray
    leading: int
    discarded: int
    sought: str
    primed: bool
    resized: bool
    interlaced: bool
    damage: str
    short: bool

    @property
    def gop(self) -> str:
        """`intra`, `closed`, `open`, or `single`: keyframes, and whether frames reach over them."""
        if len(self.keys_k4) == len(self.pts_n):
            return "intra"
        if len(self.keys_k4) == 1:
            return "single"
        return "open" if self.leading else "closed"

    @cached_property
    def times(self) -> np.ndarray:
        """Time stamps of the frames in seconds, float64 [n], increasing."""
        return self.pts_n * (self.time_base[0] / self.time_base[1])

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return 1024 + 2 * self.pts_n.nbytes + self.keys_k4.nbytes


def pack(facts: VideoFacts, name: str) -> bytes:
    """Returns a record as bytes.

    Args:
        facts: The record.
        name: What it belongs to; `unpack` asks for it.
    """
    scalars = {key: value for key, value in asdict(facts).items() if key not in _ARRAYS}
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        about=np.frombuffer(json.dumps([VERSION, name, scalars]).encode(), np.uint8),
        # Differences, because those of a constant rate compress to nothing.
        pts=np.diff(facts.pts_n, prepend=0),
        keys=np.diff(facts.keys_k4, axis=0, prepend=0),
    )
    return packed.getvalue()


def unpack(packed: bytes, name: str) -> VideoFacts | None:
    """Returns the record that `pack` made of a name; None for any other bytes."""
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            version, of, scalars = json.loads(bytes(arrays["about"]))
            if (version, of) != (VERSION, name):
                return None
            for key in ("size", "turn", "time_base"):
                scalars[key] = tuple(scalars[key])
            return VideoFacts(
                **scalars,
                pts_n=np.cumsum(arrays["pts"]),
                keys_k4=np.cumsum(arrays["keys"], axis=0),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
