"""Frames from packets, exactly: from the start of a file or from a keyframe on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from salt_plugin.video.containers import open_container
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.packets import lacks_refresh
from salt_plugin.video.reader import VideoReadError
from salt_plugin.video.time_limit import beat

_NEVER = -(2**63)
# Packets that may come before the keyframe after a seek.
_LEAD = 1024


def decode_all(path: str) -> Iterator[Any]:
    """Decodes a file from its start, or what is there of it.

    Yields:
        PyAV's frames, in order of display.

    Raises:
        VideoReadError: Where decoding fails, after the frames before.
    """
    container, stream = open_container(path)
    with container:
        try:
            yield from _decode(stream, container.demux(stream), may_lack=True)
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(path, f"decoding failed: {error.strerror or error}") from error


def decode_from(container: Any, stream: Any, keys_k3: np.ndarray, group: int) -> Iterator[Any]:
    """Decodes from a keyframe on; nothing where no seek leads to it.

    Args:
        container: The open file.
        stream: Its video stream.
        keys_k3: As of `VideoFacts`.
        group: The keyframe, a row of `keys_k3`.

    Raises:
        av.FFmpegError: Data is damaged, or the file cannot be sought.
    """
    # Formats without an index lead to some packet near a time, as may be after the keyframe.
    before = keys_k3[[max(group - 1, 0), max(group - 2, 0)], 1]
    for goal in dict.fromkeys([*keys_k3[group, :2].tolist(), *before.tolist()]):
        container.seek(goal, stream=stream)
        packets = _from_key(container.demux(stream), keys_k3[group])
        first = next(packets, None)
        if first is not None:
            yield from _decode(stream, chain([first], packets), may_lack=False)
            return


def _from_key(packets: Iterable[Any], key_3: np.ndarray) -> Iterator[Any]:
    pts, _, place = key_3.tolist()
    begun = False
    for number, packet in enumerate(packets):
        if not begun:
            # The first packets after a seek may be torn, and have the time stamps of others.
            begun = packet.is_keyframe and (packet.pts, _place(packet)) == (pts, place)
            passed = packet.is_keyframe and packet.pts is not None and packet.pts > pts
            if not begun and (passed or number == _LEAD):
                return
        # What is shown before the keyframe needs frames before it, which are not there.
        if begun and (packet.pts is None or packet.pts >= pts):
            yield packet


def _place(packet: Any) -> int:
    return -1 if packet.pos is None else max(packet.pos, -1)


def _decode(stream: Any, packets: Iterable[Any], may_lack: bool) -> Iterator[Any]:
    """Decodes packets; where one fails, what is shown before it is given first.

    Args:
        stream: Their stream.
        packets: The packets.
        may_lack: Whether the first ones may refer to frames before, as in a file that was captured
            midway. Those that do are left out.
    """
    key: int | None = None  # the time of the first keyframe
    lacks = needs = False  # whether frames may be lacking, and packets after the keyframe need them
    for packet in packets:
        beat()
        needless = False
        if may_lack and packet.size:
            pts = _NEVER if packet.pts is None else packet.pts
            if packet.is_keyframe and key is None:
                # Without the keyframe's time, it is unknown which packets are shown before it.
                key, needs = pts, (lacks and pts == _NEVER) or lacks_refresh(packet)
            leads = key is None or _NEVER < pts < key
            lacks = lacks or leads or needs
            needless = not packet.is_keyframe and (leads or needs)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if needless:
                continue
            yield from _waiting(stream, packet.pts)
            raise
        for frame in frames:
            beat()
            if not (may_lack and lacks and frame.is_corrupt):
                may_lack = False  # from here on failures are damage
                yield frame


def _waiting(stream: Any, pts: int | None) -> list[Any]:
    """Returns the frames that the decoder holds until later ones have come."""
    try:
        frames = stream.codec_context.decode(None)
    except (av.FFmpegError, EOFError):
        return []
    return [frame for frame in frames if None not in (pts, frame.pts) and frame.pts < pts]


def picture(path: str, frame: Any, facts: VideoFacts) -> np.ndarray:
    """Returns a decoded frame, upright and in the size of the first one, uint8 [H, W, 3].

    Raises:
        VideoReadError: The decoder marked it as damaged.
    """
    if frame.is_corrupt:
        raise VideoReadError(path, f"decoding failed: the frame at {frame.time} s is damaged")
    height, width = facts.size
    scale: dict[str, Any] = {}
    if (frame.height, frame.width) != (height, width):
        scale = {"width": width, "height": height, "interpolation": "BICUBIC"}  # as ffmpeg does
    # A converter of its own, in this thread: PyAV 19 keeps one with threads, which a fork loses.
    converted = VideoReformatter().reformat(frame, format="rgb24", threads=1, **scale)
    pixels = converted.to_ndarray()
    transposed, columns, rows = facts.turn
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]
