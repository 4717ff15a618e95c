"""Which reader a name is opened with."""

from __future__ import annotations

from salt_plugin.video.decord_reader import DecordReader, decord_danger
from salt_plugin.video.exact_reader import ExactReader
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.images import FramesReader, ImageReader, is_frames, is_image
from salt_plugin.video.reader import Reader, VideoReadError

READERS = ("pyav", "auto", "decord")
DEFAULT_READER = "pyav"


def open_video(path: str, reader: str = DEFAULT_READER) -> Reader:
    """Opens a video, a folder of frames, or an image, which is a video of one frame.

    Args:
        path: The file, the folder, or what names its images, such as `folder/%06d.jpg`.
        reader: Of video files. `pyav` reads exactly. `decord` refuses files of the kinds in which
            decord returns frames that were not asked for. `auto` leaves these to `pyav`, and others
            to decord.

    Raises:
        VideoReadError: It cannot be read, or not by this reader.
    """
    if is_frames(path):
        return FramesReader(path)
    if is_image(path):
        return ImageReader(path)
    if reader == "pyav":
        return ExactReader(path)
    facts = facts_of(path)
    danger = decord_danger(path, facts)
    if danger is None:
        return DecordReader(path, facts)
    if reader == "auto":
        return ExactReader(path)
    raise VideoReadError(path, f"{danger}; method.data.reader=pyav reads it")
