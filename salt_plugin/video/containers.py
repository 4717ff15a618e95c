"""A video file opened with PyAV, and which of its streams is the video."""

from __future__ import annotations

from typing import Any

import av
from av.stream import Disposition

from salt_plugin.files import is_address
from salt_plugin.video.reader import (
    MAX_PIXELS,
    VideoReadError,
    regular_state,
    require_content,
    require_memory,
)
from salt_plugin.video.storage import open_bytes

# Without playlists: to FFmpeg they are videos too, and name other files and addresses.
_FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ivf,flv,asf,ogg"
# Of files of these formats, in folders.
_SUFFIXES = """
.mp4 .m4v .mov .3gp .3g2 .f4v .mkv .webm .avi .divx .mpg .mpeg .vob .ts .mts .m2ts .m1v .m2v
.flv .wmv .asf .ogv .ivf .h264 .264 .hevc .265
"""
VIDEO_SUFFIXES = tuple(_SUFFIXES.split())
# Frames may state other sizes than the header, and are decoded to learn what it leaves out.
_PIXELS = {"max_pixels": str(MAX_PIXELS)}
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS} | _PIXELS
# From 19 on PyAV takes no such argument, and replaces what is not UTF-8.
_TEXT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: str) -> tuple[Any, Any]:
    """Opens a file with PyAV.

    Returns:
        The container and its video stream: FFmpeg's best one, and never an attached picture. It
        decodes in one thread, and fails where data is damaged rather than inventing a picture.

    Raises:
        VideoReadError: It is no video file, holds no video, or its frames are too large.
    """
    file: Any = path
    if is_address(path):
        file = open_bytes(path)
    else:
        require_content(path, regular_state(path))
    try:
        container = av.open(file, options=_OPTIONS, **_TEXT)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoReadError(path, "not a video file that PyAV can open") from error
    try:
        stream = _video_stream(path, container)
    except VideoReadError:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"err_detect": "explode"} | _PIXELS
    return container, stream


def _video_stream(path: str, container: Any) -> Any:
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    if best not in videos:  # FFmpeg may take a picture for the best
        best = max(videos, key=_pixels, default=None)
    if best is None or best.codec_context is None:
        raise VideoReadError(path, "no video stream that PyAV can decode")
    if not _pixels(best):
        raise VideoReadError(
            path,
            "no video stream that PyAV can decode: it states no size, or more than "
            f"{MAX_PIXELS} pixels",
        )
    require_memory(path, 1, (best.codec_context.height, best.codec_context.width))
    return best


def _pixels(stream: Any) -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height
