"""The packets of a video stream, read through once; only the first frame is decoded."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import av
import numpy as np

from salt_plugin.video.frame_sizes import header_size, lacks_refresh, stated_size
from salt_plugin.video.heartbeat import beat
from salt_plugin.video.orientation import Orientation, orientation

# Codecs whose keyframes need nothing that came before but what the header holds.
_SELF_CONTAINED = (
    *("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4"),
    *("theora", "prores", "dnxhd", "ffv1"),
)
# Codecs whose packets do not end in many zeros: these are what is missing of a file.
_NO_ZEROS = ("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg4")
_ZEROS = bytes(8)
_STATE = ("palette", "new_extradata", "param_change")
_NONE = -(2**63)
# Packets in which the first frame is looked for.
_TRIES = 100


class Packets(NamedTuple):
    """Packets in the order of the file.

    Attributes:
        pts_n: Time stamps for display, int64 [n].
        told_n: Which of them have one, bool [n].
        dts_n: Time stamps for decoding, those for display where there is none, int64 [n].
        place_n: Places in the file, int64 [n], -1 where unknown.
        key_n: Which are keyframes, bool [n].
        shown_n: Which the file's edit list does not leave out, bool [n].
        length: From the first frame to the end of the last, in units of their time stamps.
        cut: Number of damaged packets at the end.
        primed: Whether the decoder needs the first one before any other.
        stateful: Whether later ones change the decoder's state, too.
        resized: Whether keyframes state several sizes, as far as `stated_size` knows the codec.
        unrefreshed: Keyframes of H.264 that do not forget the frames before.
        size: Height and width of the first frame, in pixels.
        orientation: How it is turned upright.
        interlaced: Whether it consists of two fields.
    """

    pts_n: np.ndarray
    told_n: np.ndarray
    dts_n: np.ndarray
    place_n: np.ndarray
    key_n: np.ndarray
    shown_n: np.ndarray
    length: int
    cut: int
    primed: bool
    stateful: bool
    resized: bool
    unrefreshed: int
    size: tuple[int, int]
    orientation: Orientation
    interlaced: bool

    @property
    def leading(self) -> int:
        """Frames that are shown before the keyframe that precedes them in the file."""
        if not self.key_n.any():
            return 0
        last_n = np.maximum.accumulate(np.where(self.key_n, np.arange(len(self.key_n)), -1))
        counted_n = self.told_n & ~self.key_n & (last_n >= 0) & self.told_n[last_n]
        return int((counted_n & (self.pts_n < self.pts_n[last_n])).sum())


def is_damaged(packet: Any) -> bool:
    """Tells whether a packet is cut, or ends in zeros, as those of unfinished downloads do."""
    if packet.is_corrupt:
        return True
    end = bytes(memoryview(packet)[-len(_ZEROS) :])
    zeros = end == _ZEROS[: len(end)]
    return zeros and packet.stream.codec.canonical_name in _NO_ZEROS


def read_packets(container: Any, stream: Any) -> Packets:
    """Reads through the packets of a stream.

    Raises:
        av.FFmpegError: Reading fails.
    """
    context, codec = stream.codec_context, stream.codec.canonical_name
    extradata, plain = bytes(context.extradata or b""), codec in _SELF_CONTAINED
    size, turned, interlaced = (context.height, context.width), Orientation(), False
    columns = [array("q") for _ in range(5)]
    begin, end = 2**62, -(2**62)
    cut, state, sizes, tries = 0, [], {header_size(codec, extradata)}, _TRIES
    unrefreshed = 0
    for number, packet in enumerate(container.demux(stream)):
        beat()
        if tries:
            frames = _tried(packet)
            tries = 0 if frames else tries - 1
            if frames:
                size, turned = (frames[0].height, frames[0].width), orientation(frames[0])
                interlaced = frames[0].interlaced_frame
        if not packet.size:
            continue
        key = packet.is_keyframe
        values = (packet.pts, packet.dts, packet.pos, key, packet.is_discard)
        for column, value in zip(columns, values, strict=True):
            column.append(_NONE if value is None else value)
        if packet.pts is not None:
            begin, end = min(begin, packet.pts), max(end, packet.pts + (packet.duration or 0))
        cut = cut + 1 if is_damaged(packet) else 0
        if key:
            sizes.add(stated_size(codec, extradata, memoryview(packet)))
            unrefreshed += lacks_refresh(codec, extradata, memoryview(packet))
        if (key or not plain) and any(packet.has_sidedata(kind) for kind in _STATE):
            state.append(number)
    pts_n, dts_n, place_n, key_n, discarded_n = (np.array(column, np.int64) for column in columns)
    return Packets(
        pts_n,
        pts_n != _NONE,
        np.where(dts_n == _NONE, pts_n, dts_n),
        np.maximum(place_n, -1),
        key_n > 0,
        discarded_n == 0,
        max(end - begin, 0),
        cut,
        primed=not plain or 0 in state,
        stateful=any(number > 0 for number in state),
        resized=len(sizes - {b""}) > 1,
        unrefreshed=unrefreshed,
        size=size,
        orientation=turned,
        interlaced=interlaced,
    )


def _tried(packet: Any) -> list[Any]:
    """Returns the frames that a packet gives, none where it is damaged."""
    try:
        frames: list[Any] = packet.decode()
    except (av.FFmpegError, EOFError):
        return []
    return frames
