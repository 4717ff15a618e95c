"""What a video file is, told from its header and packets; no frame is decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from salt_plugin.data.reader import (
    MAX_PIXELS,
    VideoReadError,
    require_memory,
    require_regular_file,
)

# Playlists, which name other files and addresses, are videos to FFmpeg too, whatever their suffix.
FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ivf,flv,asf,ogg"
_FILES = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
# Frames may state other sizes than the header, and are decoded to learn what it leaves out.
_PIXELS = {"max_pixels": str(MAX_PIXELS)}
# Measured: decord's frames were those of decoding from the start.
_DECORD_CODECS = ("h264", "vp8", "vp9", "mpeg4")
_INDEXED = ("mov", "matroska", "avi")


@dataclass(frozen=True)
class VideoFacts:
    """A video stream.

    Attributes:
        codec: Its name in FFmpeg, such as `h264`.
        container: First name of the file's format in FFmpeg, such as `mov`.
        size: Height and width as coded, in pixels.
        fps: Average frame rate in frames per second, 0 where the file does not tell.
        seconds: Duration that the file states, 0 where it states none.
        pts_n: Time stamps of the frames in order of display, int64 [n], in `time_base`.
        keys_kd: Time stamps of keyframes, for display and decoding, int64 [k, 2], in that order.
        leading: Frames shown before the keyframe that precedes them in the file.
        reorders: Whether frames are stored in another order than they are shown in.
        discarded: Packets that the file's edit list leaves out.
        timed: Whether a frame can be sought and told by a time stamp of its own.
    """

    codec: str
    container: str
    size: tuple[int, int]
    fps: float
    seconds: float
    pts_n: np.ndarray
    keys_kd: np.ndarray
    leading: int
    reorders: bool
    discarded: int
    timed: bool

    @property
    def gop(self) -> str:
        """`intra`, `closed`, `open`, or `single`: keyframes, and whether frames reach over them."""
        if len(self.keys_kd) == len(self.pts_n):
            return "intra"
        if len(self.keys_kd) == 1:
            return "single"
        return "open" if self.leading else "closed"


def open_container(path: str) -> tuple[Any, Any]:
    """Opens a file with PyAV.

    Returns:
        The container and its first video stream, which decodes in one thread, and fails where data
        is damaged rather than inventing a picture.

    Raises:
        VideoReadError: If it is no video file, holds no video, or its frames are too large.
    """
    require_regular_file(path)
    try:
        container = av.open(path, options=_FILES | _PIXELS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoReadError(path, "not a video file that PyAV can open") from error
    try:
        stream = _video_stream(path, container)
    except VideoReadError:
        container.close()
        raise
    context = stream.codec_context
    context.thread_count = 1
    context.options = {"err_detect": "explode"} | _PIXELS
    return container, stream


def _video_stream(path: str, container: Any) -> Any:
    stream = next(iter(container.streams.video), None)
    if stream is None or stream.codec_context is None:
        raise VideoReadError(path, "no video stream that PyAV can decode")
    context = stream.codec_context
    if not (context.width and context.height):
        raise VideoReadError(
            path,
            "no video stream that PyAV can decode: it states no size, or more than "
            f"{MAX_PIXELS} pixels",
        )
    require_memory(path, 1, (context.height, context.width))
    return stream


def read_facts(path: str, container: Any, stream: Any) -> VideoFacts:
    """Reads through the packets of an open file.

    Raises:
        VideoReadError: If there are none, or reading fails.
    """
    try:
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe, packet.is_discard)
            for packet in container.demux(stream)
            if packet.size
        ]
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(path, f"decoding failed: {error.strerror}") from error
    if not packets:
        raise VideoReadError(path, "the video has no frames")
    shown = [packet for packet in packets if not packet[3]]
    context = stream.codec_context
    times = [pts for pts, *_ in shown if pts is not None]
    keys = [
        (pts, pts if dts is None else dts)
        for pts, dts, key, _ in packets
        if key and pts is not None
    ]
    reorders = bool(context.has_b_frames)
    untold = context.name == "mpeg4" or container.format.name == "avi"
    kind = container.format.name.split(",")[0]
    pts_n = np.unique(np.array(times, dtype=np.int64))
    return VideoFacts(
        codec=stream.codec.canonical_name,
        container=kind,
        size=(context.height, context.width),
        fps=float(stream.average_rate or 0),
        seconds=(container.duration or 0) / av.time_base,
        pts_n=pts_n,
        keys_kd=np.array(sorted(keys), dtype=np.int64).reshape(-1, 2),
        leading=_leading(packets),
        reorders=reorders,
        discarded=len(packets) - len(shown),
        timed=kind in _INDEXED
        and len(pts_n) == len(shown)
        and bool(keys)
        and pts_n[0] >= min(keys)[0]
        # Time stamps there are in the order of the file, and packed frames share a packet.
        and not (reorders and untold),
    )


def packet_hash(path: str) -> str:
    """Returns the SHA-256 of the compressed packets of a file's video stream.

    Raises:
        VideoReadError: If it cannot be opened or read.
    """
    container, stream = open_container(path)
    digest = hashlib.sha256()
    with container:
        try:
            for packet in container.demux(stream):
                digest.update(packet)
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(path, f"decoding failed: {error.strerror}") from error
    return digest.hexdigest()


def decord_danger(facts: VideoFacts) -> str | None:
    """Returns why decord's frames of such a file cannot be trusted, None where they can."""
    kind = facts.codec
    if facts.codec not in _DECORD_CODECS:
        return f"{kind}: decord returns other frames than asked for, or none"
    if facts.container not in _INDEXED:
        return f"{kind} in {facts.container}: decord returns other frames than asked for"
    if facts.leading:
        return f"open-GOP {kind}: decord returns other frames than asked for after a seek"
    if not facts.timed:
        return f"{kind} without usable time stamps: decord's frames are shifted"
    if facts.discarded:
        return f"{kind} with an edit list: decord counts frames that are not shown"
    return None


def _leading(packets: list[tuple[int | None, int | None, bool, bool]]) -> int:
    count, key = 0, None
    for pts, _, is_key, _ in packets:
        if is_key:
            key = pts
        elif key is not None and pts is not None:
            count += pts < key
    return count
