"""Facts of a video file, found by reading through it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np

from salt_plugin.video.decoding import DamageError, decode_all, decode_from, prime
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.heartbeat import beat
from salt_plugin.video.inspection import open_container
from salt_plugin.video.packets import Packets, read_packets
from salt_plugin.video.reader import VideoReadError, require_memory

# Formats whose index leads to any keyframe by its time stamp.
INDEXED = ("mov", "matroska", "avi")
# A video that ends this much before its header says has been cut.
_CUT = 0.9
# A seek by bytes leads to a packet as far as this before the keyframe, and to one known place more:
# in MPEG's program streams the first ones after a seek are torn, and get time stamps of others.
_BEFORE = 2
# Frames that a decoder holds at most, as H.264 and H.265 limit them.
_HELD = 16


def scan(path: str) -> VideoFacts:
    """Reads through a file; where its packets do not tell the frames, all of these are decoded.

    Raises:
        VideoReadError: It is no video, holds no frames, or cannot be read.
    """
    container, stream = open_container(path)
    with container:
        reorders = bool(stream.codec_context.has_b_frames)
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        try:
            packets = read_packets(container, stream)
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(path, f"decoding failed: {error.strerror}") from error
        if not len(packets.pts_n):
            raise VideoReadError(path, "the video has no frames")
        if packets.cut == len(packets.pts_n):
            raise _nothing_whole(path)
        require_memory(path, 1, packets.size)
        facts = _described(container, stream, packets)
        seconds, short = _stated_seconds(container, stream), False
        if packets.length * stream.time_base < _CUT * seconds:
            short = _ends_early(path, container, stream, seconds)
    facts = replace(facts, seconds=seconds, short=short)
    # Whether each frame has a time stamp of its own, and a keyframe before it.
    timed = 0 < len(facts.pts_n) == packets.shown_n.sum() and len(facts.keys_k4) > 0
    if timed and facts.pts_n[0] < facts.keys_k4[0, 0]:
        facts = _from_keyframe(path, facts)
        timed = facts.pts_n[0] >= facts.keys_k4[0, 0]
    untold = facts.codec == "mpeg4" or facts.container == "avi"
    # Time stamps there are in the order of the file, and packed frames share a packet.
    if not timed or (reorders and untold) or packets.stateful:
        return _counted(path, facts, rate, bool(packets.cut))
    if packets.cut:
        bad_n = packets.pts_n[-packets.cut :][packets.told_n[-packets.cut :]]
        facts = _ending(path, facts, int((facts.pts_n < bad_n.min(initial=2**62)).sum()))
    return facts if facts.container in INDEXED else _by_bytes(path, facts, rate)


def _described(container: Any, stream: Any, packets: Packets) -> VideoFacts:
    keys_n = np.flatnonzero(packets.key_n & packets.told_n)
    keys_n = keys_n[np.lexsort((packets.dts_n[keys_n], packets.pts_n[keys_n]))]
    begin_n = _begins(packets.place_n, keys_n)
    columns = (packets.pts_n, packets.dts_n, packets.place_n)
    keys = [column[keys_n] for column in columns]
    return VideoFacts(
        codec=stream.codec.canonical_name,
        container=container.format.name.split(",")[0],
        stream=stream.index,
        videos=len(container.streams.video),
        size=packets.size,
        turn=packets.orientation.turn,
        quarter=packets.orientation.quarter,
        fps=float(stream.average_rate or 0),
        seconds=0,
        time_base=(stream.time_base.numerator, stream.time_base.denominator),
        pts_n=np.unique(packets.pts_n[packets.told_n & packets.shown_n]),
        keys_k4=np.stack([*keys, begin_n], axis=1),
        leading=packets.leading + packets.unrefreshed,
        discarded=int((~packets.shown_n).sum()),
        sought="index",
        primed=packets.primed,
        resized=packets.resized,
        interlaced=packets.interlaced,
        damage="",
        short=False,
    )


def _begins(place_n: np.ndarray, keys_n: np.ndarray) -> np.ndarray:
    """Returns where reading starts for packets of these numbers, int64 [k]; 0 for the start."""
    known_n = np.flatnonzero(place_n >= 0)  # several packets may share a place
    last_n = np.searchsorted(known_n, keys_n - _BEFORE, side="right") - 2
    return np.where(last_n < 0, 0, place_n[known_n[np.maximum(last_n, 0)]] if len(known_n) else 0)


def _stated_seconds(container: Any, stream: Any) -> float:
    own = _own_seconds(stream)
    return (container.duration or 0) / av.time_base if own is None else own


def _own_seconds(stream: Any) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:  # Matroska's tag, as 00:00:02.400000000
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None


def _ends_early(path: str, container: Any, stream: Any, seconds: float) -> bool:
    """Tells whether a file ends well before the duration that it states, its sound included."""
    if _own_seconds(stream) is not None or len(container.streams) == 1:
        return True
    whole, _ = open_container(path)
    times = []
    with whole:
        for packet in whole.demux():
            beat()
            if packet.pts is not None:
                times.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        start = (whole.start_time or 0) / av.time_base
    return max(times, default=0) - start < _CUT * seconds


def _from_keyframe(path: str, facts: VideoFacts) -> VideoFacts:
    """Leaves out what is shown before the first keyframe, where decoding begins with this."""
    try:
        first = next(decode_all(path), None)
    except DamageError:
        return facts
    key = facts.keys_k4[0, 0]
    if first is None or first.pts != key:
        return facts
    pts_n = facts.pts_n[facts.pts_n >= key]
    return replace(facts, pts_n=pts_n, leading=facts.leading + len(facts.pts_n) - len(pts_n))


def _ending(path: str, facts: VideoFacts, number: int) -> VideoFacts:
    """Returns the facts of the frames before one that is damaged."""
    if number == 0:
        raise _nothing_whole(path)
    pts_n = facts.pts_n[:number]
    return replace(
        facts,
        pts_n=pts_n,
        keys_k4=facts.keys_k4[facts.keys_k4[:, 0] <= pts_n[-1]],
        damage=f"frame {number} is damaged or missing; the {number} before it are used",
        short=True,
    )


def _nothing_whole(path: str) -> VideoReadError:
    reason = "decoding failed: Invalid data found when processing input (frame 0)"
    return VideoReadError(path, reason)


def _by_bytes(path: str, facts: VideoFacts, rate: Fraction) -> VideoFacts:
    """Finds out whether keyframes are reached by their places, and counts frames where not."""
    facts, keys_k4 = replace(facts, sought="bytes"), facts.keys_k4
    if (np.diff(keys_k4[:, 3]) < 0).any():
        return _counted(path, facts, rate)
    groups = {len(keys_k4) // 2, len(keys_k4) - 1}
    if facts.leading and facts.pts_n[-1] == keys_k4[-1, 0]:
        groups.add(max(len(keys_k4) - 2, 0))  # which the last packets of the file belong to
    for group in sorted(groups):
        last = group == len(keys_k4) - 1
        begin = int(np.searchsorted(facts.pts_n, keys_k4[group, 0]))
        end = len(facts.pts_n) if last else int(np.searchsorted(facts.pts_n, keys_k4[group + 1, 0]))
        expected = facts.pts_n[begin:end].tolist()
        found, failed = _tried(path, facts, group, end - begin)
        if failed:
            counted = _counted(path, facts, rate)
            same = np.array_equal(counted.pts_n, facts.pts_n[: len(counted.pts_n)])
            return replace(counted, sought="bytes") if same else counted
        if found != expected:
            return _counted(path, facts, rate)
    return facts


def _tried(path: str, facts: VideoFacts, group: int, count: int) -> tuple[list[int], bool]:
    """Decodes frames from a keyframe on; returns their time stamps, and whether it failed."""
    found: list[int] = []
    container, stream = open_container(path)
    with container:
        try:
            prime(container, stream, facts)
            key_4 = facts.keys_k4[group]
            for frame in decode_from(container, stream, key_4, "bytes", int(key_4[3])):
                found.append(frame.pts)
                if len(found) == count:
                    break
        except (av.FFmpegError, OSError):
            return found, True
    return found, False


def _counted(path: str, facts: VideoFacts, rate: Fraction, cut: bool = False) -> VideoFacts:
    """Decodes a file from its start, to learn how many frames that gives, and their times."""
    times: list[Any] = []
    try:
        for frame in decode_all(path):
            if frame.is_corrupt:
                cut = True
                break
            times.append(frame.pts)
    except DamageError:
        if not times:
            raise
        cut = True
    if not times:
        raise _nothing_whole(path) if cut else VideoReadError(path, "the video has no frames")
    if None in times or (np.diff(times) <= 0).any():
        facts = replace(facts, time_base=(rate.denominator, rate.numerator))
        times = list(range(len(times)))
    elif cut:
        times = times[: _lost(times, facts.pts_n)]
    facts = replace(facts, sought="start", pts_n=np.array(times, np.int64))
    return _ending(path, facts, len(times)) if cut or facts.damage else facts


def _lost(times: list[int], pts_n: np.ndarray) -> int:
    """Returns which frame a decoder lost where it failed: it gives those that it still holds."""
    told = pts_n[np.searchsorted(pts_n, times[0]) :][: len(times)]
    differs = np.flatnonzero(told != times[: len(told)])
    if len(differs) and len(times) - differs[0] <= _HELD:
        return int(differs[0])
    return len(times)
