"""Facts of a video file, found by reading through it."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from math import hypot
from typing import Any, NamedTuple

import av
import numpy as np

from salt_plugin.video.containers import open_container
from salt_plugin.video.decoding import decode_all, decode_from
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.packets import Packets, read_packets
from salt_plugin.video.reader import OutOfReachError, VideoReadError, require_memory

# Codecs whose keyframes need nothing that came before but what the header holds.
_SELF_CONTAINED = (
    *("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4"),
    *("theora", "prores", "dnxhd", "ffv1", "mjpeg", "h263", "flv1", "msmpeg4v3", "wmv1", "wmv2"),
)
# Formats with an index of their packets, which shows where data is missing.
_INDEXED = ("mov", "matroska", "avi")
# Codecs that decord reads exactly, as far as it was measured.
_DECORD = ("h264", "vp8", "vp9", "mpeg4")
# A video that ends this much before its header says has been cut.
_CUT = 0.9
_EMPTY = "the video has no frames"
_INVALID = "decoding failed: Invalid data found when processing input (frame 0)"


class _Frames(NamedTuple):
    """Frames as they can be read; attributes as of `VideoFacts`, and whether the end is damaged."""

    pts_n: np.ndarray
    keys_k3: np.ndarray
    tick: float
    seekable: bool
    damaged: bool = False


def scan(path: str) -> VideoFacts:
    """Reads through a file; where its packets do not tell the frames, all of these are decoded.

    Raises:
        VideoReadError: It is no video, holds no frames, or cannot be read.
    """
    container, stream = open_container(path)
    with container:
        try:
            packets = read_packets(container, stream)
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(path, f"decoding failed: {error.strerror}") from error
        first = next(decode_all(path), None)
        if first is None:
            raise VideoReadError(path, _INVALID if len(packets.pts_n) else _EMPTY)
        size = first.height, first.width
        require_memory(path, 1, size)
        frames = _frames(path, container, stream, packets)
        count = len(frames.pts_n)
        codec, kind = stream.codec.canonical_name, container.format.name.split(",")[0]
        turn, mirrored = _upright(first)
        odd = size[0] % 2 or size[1] % 2
        left_out = frames.seekable and not frames.damaged and packets.shown_n.sum() > count
        open_gop = left_out or packets.leading + packets.unrefreshed > 0
        reasons = (
            (codec not in _DECORD, f"{codec}: decord returns other frames than asked for, or none"),
            (kind not in _INDEXED, f"{codec} in {kind}: decord returns other frames"),
            (len(container.streams.video) > 1, "several video streams: decord may read another"),
            (open_gop, f"open-GOP {codec}: decord returns other frames than asked for"),
            (not frames.seekable, f"{codec} without usable time stamps: decord shifts frames"),
            (not packets.shown_n.all(), f"{codec} with an edit list: decord shows what it hides"),
            (mirrored, f"{codec} with a mirror or odd angle: decord knows quarter turns alone"),
            (first.interlaced_frame, f"interlaced {codec}: decord's pixels differ"),
            (odd, f"{codec} with an odd width or height: decord's pixels differ"),
            (frames.damaged, f"{codec} that was cut: decord does not open it, or makes frames up"),
        )
        # Where only the file states a duration, that of another stream may be meant.
        own = stream.duration and float(stream.duration * stream.time_base)
        seconds = own or (container.duration or 0) / av.time_base
        stated = seconds if own or len(container.streams) == 1 else 0
        return VideoFacts(
            codec=codec,
            container=kind,
            stream=stream.index,
            size=size,
            turn=turn,
            fps=float(stream.average_rate or 0),
            seconds=seconds,
            tick=frames.tick,
            pts_n=frames.pts_n,
            keys_k3=frames.keys_k3,
            gop=_gop(count, len(frames.keys_k3), open_gop),
            seekable=frames.seekable,
            danger=next((reason for holds, reason in reasons if holds), ""),
            damage=f"frame {count} is damaged or missing; the {count} before it are used"
            * frames.damaged,
            short=frames.damaged or packets.length * stream.time_base < _CUT * stated,
        )


def _frames(path: str, container: Any, stream: Any, packets: Packets) -> _Frames:
    """Finds out which frames can be read, and how they are reached."""
    codec, kind = stream.codec.canonical_name, container.format.name.split(",")[0]
    pts_n = np.unique(packets.pts_n[packets.timed_n & packets.shown_n])
    at_n = np.flatnonzero(packets.key_n & packets.timed_n)
    at_n = at_n[np.lexsort((packets.dts_n[at_n], packets.pts_n[at_n]))]
    keys_k3 = np.stack([packets.pts_n, packets.dts_n, packets.place_n], axis=1)[at_n]
    # Whether each frame has a time of its own; in AVI times are in the order of the file, and
    # packed frames share a packet.
    timed = len(keys_k3) > 0 and 0 < len(pts_n) == packets.shown_n.sum()
    unordered = stream.codec_context.has_b_frames and (codec == "mpeg4" or kind == "avi")
    stateful = packets.stateful or codec not in _SELF_CONTAINED
    seekable = bool(timed and not unordered and not stateful)
    tick = float(stream.time_base)
    if seekable and not packets.cut and pts_n[0] >= keys_k3[0, 0]:
        whole = _Frames(pts_n, keys_k3, tick, seekable)
        if kind in _INDEXED or _is_whole(container, stream, whole):
            return whole
    times, damaged = _decoded(path)
    damaged = damaged or packets.cut > 0
    if not times:
        raise VideoReadError(path, _INVALID)
    if None in times or (np.diff(times) <= 0).any():
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        return _Frames(np.arange(len(times)), keys_k3, float(1 / rate), False, damaged)
    times_n = np.array(times, np.int64)
    if seekable and damaged:
        # A decoder may lose a frame where it fails, and give those after it that it still holds.
        expected_n = pts_n[np.searchsorted(pts_n, times_n[0]) :][: len(times_n)]
        cut_n = packets.pts_n[len(packets.pts_n) - packets.cut :]
        times_n = times_n[: len(expected_n)]
        right_n = (times_n == expected_n) & (times_n < cut_n.min(initial=2**62))
        times_n = times_n[: np.argmin([*right_n, False])]
        if not len(times_n):
            raise VideoReadError(path, _INVALID)
    seekable = seekable and times_n[0] >= keys_k3[0, 0]
    if seekable:
        keys_k3 = keys_k3[keys_k3[:, 0] <= times_n[-1]]
    return _Frames(times_n, keys_k3, tick, bool(seekable), damaged)


def _decoded(path: str) -> tuple[list[Any], bool]:
    """Decodes a file from its start; returns the times of the frames, and whether it is damaged.

    Raises:
        OutOfReachError: Its bytes cannot be had, which is no damage.
    """
    times: list[Any] = []
    try:
        for frame in decode_all(path):
            if frame.is_corrupt:
                return times, True
            times.append(frame.pts)
    except OutOfReachError:
        raise
    except VideoReadError:
        return times, True
    return times, False


def _is_whole(container: Any, stream: Any, frames: _Frames) -> bool:
    """Decodes two groups, in the middle and at the end, for damage that packets do not show."""
    count = len(frames.keys_k3)
    begins_k = [*np.searchsorted(frames.pts_n, frames.keys_k3[:, 0]), len(frames.pts_n)]
    for group in sorted({count // 2, count - 1}):
        wanted = frames.pts_n[begins_k[group] : begins_k[group + 1]].tolist()
        decoded = decode_from(container, stream, frames.keys_k3, group)
        try:
            if [frame.pts for frame in islice(decoded, len(wanted))] != wanted:
                return False
        except (av.FFmpegError, OSError):
            return False
    return True


def _gop(frames: int, keyframes: int, open_gop: bool) -> str:
    if keyframes in (1, frames):
        return "intra" if keyframes == frames else "single"
    return "open" if open_gop else "closed"


def _upright(frame: Any) -> tuple[tuple[bool, bool, bool], bool]:
    """Returns the turn nearest to the display matrix, and whether this asks for something else.

    The matrix is int32 [9], by rows; it takes column x and row y to a * x + c * y.
    """
    try:
        matrix_9 = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)
    except KeyError:
        return (False, False, False), False
    a, b, _, c, d, *_ = (int(value) for value in matrix_9)
    across, down = hypot(a, c), hypot(b, d)
    if not (across and down):
        return (False, False, False), False
    kept, swapped = min(abs(a) / across, abs(d) / down), min(abs(c) / across, abs(b) / down)
    transposed = kept < swapped
    turn = (transposed, (c if transposed else a) < 0, (b if transposed else d) < 0)
    return turn, max(kept, swapped) <= 0.999 or sum(turn) % 2 == 1
