"""A video file opened with PyAV, and which of its streams is the video."""

from __future__ import annotations

import hashlib
from typing import Any

import av
from av.stream import Disposition

from salt_plugin.video.heartbeat import beat
from salt_plugin.video.reader import (
    MAX_PIXELS,
    VideoReadError,
    require_memory,
    require_regular_file,
)

# Playlists, which name other files and addresses, are videos to FFmpeg too, whatever their suffix.
FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ivf,flv,asf,ogg"
# Of files of these formats, in folders.
_SUFFIXES = {
    "mov": (".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".f4v"),
    "matroska": (".mkv", ".webm"),
    "avi": (".avi", ".divx"),
    "mpeg": (".mpg", ".mpeg", ".vob"),
    "mpegts": (".ts", ".mts", ".m2ts"),
    "mpegvideo": (".m1v", ".m2v"),
    "flv": (".flv",),
    "asf": (".wmv", ".asf"),
    "ogg": (".ogv",),
    "ivf": (".ivf",),
    "h264": (".h264", ".264"),
    "hevc": (".hevc", ".265"),
}
VIDEO_SUFFIXES = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
_FILES = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
# Frames may state other sizes than the header, and are decoded to learn what it leaves out.
_PIXELS = {"max_pixels": str(MAX_PIXELS)}
# From 19 on PyAV takes no such argument, and replaces what is not UTF-8.
_TEXT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_IMPAIRED = Disposition.hearing_impaired | Disposition.visual_impaired


def open_container(path: str) -> tuple[Any, Any]:
    """Opens a file with PyAV.

    Returns:
        The container and its video stream: the one that FFmpeg holds for the best, and never an
        attached picture. It decodes in one thread, and fails where data is damaged rather than
        inventing a picture.

    Raises:
        VideoReadError: If it is no video file, holds no video, or its frames are too large.
    """
    require_regular_file(path)
    try:
        container = av.open(path, options=_FILES | _PIXELS, **_TEXT)
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
    stream = _best(container)
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


def _best(container: Any) -> Any:
    best = container.streams.best("video")
    if best is None or not best.disposition & Disposition.attached_pic:
        return best
    # FFmpeg may hold a picture for the best, but leaves none out: its rule, for the others.
    others = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    return max(others, key=_rank, default=None)


def _rank(stream: Any) -> tuple[int, int, int]:
    shown = int(not stream.disposition & _IMPAIRED) + bool(stream.disposition & Disposition.default)
    context = stream.codec_context
    if context is None:
        return shown, -1, 0
    return shown, context.bit_rate or 0, context.width * context.height


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
                beat()
                digest.update(packet)
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(path, f"decoding failed: {error.strerror}") from error
    return digest.hexdigest()
