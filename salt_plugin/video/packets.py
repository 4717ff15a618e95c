"""The packets of a video stream, read through once without decoding them."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np

from salt_plugin.video.time_limit import beat

# Codecs whose packets do not end in many zeros: these are what is missing of a file.
_NO_ZEROS = ("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg4")
_ZEROS = bytes(8)
# What a packet may carry that changes the decoder's state.
_STATE = ("palette", "new_extradata", "param_change")
_NONE = -(2**63)
_START = b"\x00\x00\x01"
_IDR, _SLICES = 5, (1, 5)
# Bytes of a keyframe: far enough for parameter sets, which come first.
_LOOKED_AT = 4096


class Packets(NamedTuple):
    """Packets in the order of the file.

    Attributes:
        pts_n: Time stamps for display, int64 [n].
        timed_n: Which of them have one, bool [n].
        dts_n: Time stamps for decoding, those for display where there is none, int64 [n].
        place_n: Places in the file, int64 [n], -1 where unknown.
        key_n: Which are keyframes, bool [n].
        shown_n: Which the file's edit list does not leave out, bool [n].
        length: From the first frame to the end of the last, in units of their time stamps.
        cut: Number of damaged packets at the end.
        stateful: Whether one after the first changes the decoder's state.
        unrefreshed: Number of keyframes after which frames may need those before.
    """

    pts_n: np.ndarray
    timed_n: np.ndarray
    dts_n: np.ndarray
    place_n: np.ndarray
    key_n: np.ndarray
    shown_n: np.ndarray
    length: int
    cut: int
    stateful: bool
    unrefreshed: int

    @property
    def leading(self) -> int:
        """Frames that are shown before the keyframe that precedes them in the file."""
        last_n = np.maximum.accumulate(np.where(self.key_n, np.arange(len(self.key_n)), 0))
        timed_n = self.timed_n & self.timed_n[last_n]
        return int((timed_n & (self.pts_n < self.pts_n[last_n])).sum())


def read_packets(container: Any, stream: Any) -> Packets:
    """Reads through the packets of a stream.

    Raises:
        av.FFmpegError: Reading fails.
    """
    table = array("q")
    end, cut, stateful, unrefreshed = _NONE, 0, False, 0
    zeros_are_cuts = stream.codec.canonical_name in _NO_ZEROS
    for packet in container.demux(stream):
        beat()
        if not packet.size:
            continue
        for data in packet.iter_sidedata():
            stateful |= len(table) > 0 and data.data_type in _STATE
        values = (packet.pts, packet.dts, packet.pos, packet.is_keyframe, packet.is_discard)
        table.extend([_NONE if value is None else value for value in values])
        if packet.pts is not None:
            end = max(end, packet.pts + (packet.duration or 0))
        damaged = packet.is_corrupt or (zeros_are_cuts and _ends_in_zeros(packet))
        cut = cut + 1 if damaged else 0
        unrefreshed += packet.is_keyframe and lacks_refresh(packet)
    pts_n, dts_n, place_n, key_n, discarded_n = np.array(table, np.int64).reshape(-1, 5).T.copy()
    timed_n = pts_n != _NONE
    return Packets(
        pts_n,
        timed_n,
        np.where(dts_n == _NONE, pts_n, dts_n),
        np.maximum(place_n, -1),
        key_n > 0,
        discarded_n == 0,
        max(end - int(pts_n[timed_n].min(initial=2**62)), 0),
        cut,
        stateful,
        unrefreshed,
    )


def _ends_in_zeros(packet: Any) -> bool:
    """Tells whether a packet ends as those of unfinished downloads do."""
    end = bytes(memoryview(packet)[-len(_ZEROS) :])
    return end == _ZEROS[: len(end)]


def lacks_refresh(packet: Any) -> bool:
    """Tells whether frames after a keyframe may need those before: in H.264 one without IDR."""
    if packet.stream.codec.canonical_name != "h264":
        return False
    extradata = bytes(packet.stream.codec_context.extradata or b"")
    data = bytes(memoryview(packet)[:_LOOKED_AT])
    if extradata[:1] != b"\x01" or data.startswith((_START, b"\x00" + _START)):
        units = [unit[0] & 31 for unit in data.split(_START)[1:] if unit]
    else:  # each unit after its length
        width, place, units = (extradata[4] & 3) + 1, 0, []
        while place + width < len(data):
            units.append(data[place + width] & 31)
            place += width + int.from_bytes(data[place : place + width], "big")
    return next((unit != _IDR for unit in units if unit in _SLICES), False)
