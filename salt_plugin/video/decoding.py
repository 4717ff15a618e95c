"""Frames from packets, exactly: from the start of a file or from a keyframe on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.frame_sizes import lacks_refresh
from salt_plugin.video.heartbeat import beat
from salt_plugin.video.inspection import open_container
from salt_plugin.video.packets import is_damaged
from salt_plugin.video.reader import VideoReadError

_NEVER = -(2**63)
# Packets that may come before the keyframe after a seek by bytes.
_LEAD = 1024


class DamageError(VideoReadError):
    """A file that cannot be decoded to its end.

    Attributes:
        pts: Time stamp of the packet at which decoding fails, where it has one.
    """

    def __init__(self, path: str, reason: str, pts: int | None = None) -> None:
        super().__init__(path, reason)
        self.pts = pts


def whole(packets: Iterable[Any]) -> Iterator[Any]:
    """Leaves out what the end of a file that was cut holds of its last packets."""
    held: list[Any] = []
    for packet in packets:
        beat()
        if packet.size and is_damaged(packet):
            held.append(packet)
            continue
        if packet.size:  # the damage is not at the end: that is for the decoder to judge
            yield from held
            held = []
        yield packet


class _Start:
    """The start of a file, which may lie amid frames that refer to ones before it.

    Attributes:
        amid: Whether it does, as far as it was read.
        shown: Whether a frame has come of it, from which on failures are damage.
    """

    def __init__(self) -> None:
        self.amid = self.shown = False
        self._key: int | None = None
        self._open = False

    def may_fail(self, packet: Any) -> bool:
        """Takes the next packet; tells whether it may lack frames that the file does not hold."""
        if self.shown or not packet.size:
            return False
        pts = _NEVER if packet.pts is None else packet.pts
        if packet.is_keyframe and self._key is None:
            self._key, codec = pts, packet.stream.codec.canonical_name
            extradata = bytes(packet.stream.codec_context.extradata or b"")
            # Without IDR, later packets of H.264 dismiss frames from before the keyframe, and fail;
            # without its time, it is unknown which packets are shown before it.
            unknown = self.amid and pts == _NEVER
            self._open = unknown or lacks_refresh(codec, extradata, memoryview(packet))
        leads = self._key is None or _NEVER < pts < self._key
        self.amid = self.amid or leads or self._open
        return not packet.is_keyframe and (leads or self._open)


def decode(stream: Any, packets: Iterable[Any], start: _Start | None = None) -> Iterator[Any]:
    """Decodes packets; where one fails, what is shown before it is given first.

    Args:
        stream: Their stream.
        packets: The packets.
        start: Where they are those from the start of a file.

    Raises:
        av.FFmpegError: A packet is damaged; `pts` is its time stamp.
    """
    for packet in packets:
        may_fail = start is not None and start.may_fail(packet)
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if may_fail:
                continue
            error.pts = packet.pts
            yield from _waiting(stream, packet.pts)
            raise
        for frame in frames:
            beat()
            if start is not None and not start.shown:
                if start.amid and frame.is_corrupt:
                    continue
                start.shown = True
            yield frame


def _waiting(stream: Any, pts: int | None) -> list[Any]:
    """Returns the frames that the decoder holds until later ones have come."""
    try:
        frames = stream.codec_context.decode(None)
    except (av.FFmpegError, EOFError):
        return []
    return [frame for frame in frames if None not in (pts, frame.pts) and frame.pts < pts]


def decode_all(path: str) -> Iterator[Any]:
    """Decodes a file from its start, or what is there of it.

    Yields:
        PyAV's frames, in order of display.

    Raises:
        DamageError: Where decoding fails.
    """
    container, stream = open_container(path)
    with container:
        try:
            yield from decode(stream, whole(container.demux(stream)), _Start())
        except (av.FFmpegError, OSError) as error:
            # No name for it: it would refer to this frame, and both to the open file.
            reason = f"decoding failed: {error.strerror or error}"
            raise DamageError(path, reason, getattr(error, "pts", None)) from error


def prime(container: Any, stream: Any, facts: VideoFacts) -> None:
    """Decodes the first packet of a file, where what it carries is needed by all others.

    Raises:
        av.FFmpegError: It is damaged.
    """
    if facts.primed:
        next(container.demux(stream)).decode()


def decode_from(
    container: Any, stream: Any, key_4: np.ndarray, sought: str, place: int
) -> Iterator[Any]:
    """Decodes from a keyframe on; nothing where a seek does not lead to it.

    Args:
        container: The open file.
        stream: Its video stream.
        key_4: A row of `VideoFacts.keys_k4`.
        sought: As `VideoFacts.sought`, `index` or `bytes`.
        place: Where to seek to: a time stamp or a place in the file.

    Raises:
        av.FFmpegError: Data is damaged, or the file cannot be sought.
    """
    by_bytes = sought == "bytes"
    container.seek(place, stream=stream, any_frame=by_bytes, unsupported_byte_offset=by_bytes)
    return decode(stream, _after(whole(container.demux(stream)), key_4.tolist(), by_bytes))


def _after(packets: Iterator[Any], key: list[int], by_bytes: bool) -> Iterator[Any]:
    pts, _, place, _ = key
    for number, packet in enumerate(packets):
        if by_bytes and place >= 0:
            reached = (packet.pts, packet.pos) == (pts, place)
        elif by_bytes:
            reached = packet.is_keyframe and packet.pts == pts
        else:
            reached = packet.is_keyframe and packet.pts is not None and packet.pts <= pts
        if reached:
            yield packet
            break
        if not by_bytes or number == _LEAD:
            return
    else:
        return
    start = packet.pts
    # What is shown before the keyframe needs frames before it, which are not there.
    yield from (packet for packet in packets if packet.pts is None or packet.pts >= start)


def picture(path: str, frame: Any, facts: VideoFacts) -> np.ndarray:
    """Returns a decoded frame, upright and in the size of the first one, uint8 [H, W, 3].

    Raises:
        VideoReadError: If the decoder marked it as damaged.
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
