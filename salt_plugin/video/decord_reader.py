"""One video file, opened and read with decord."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_plugin.errors import DataError
from salt_plugin.files import is_address
from salt_plugin.video.containers import open_container
from salt_plugin.video.facts import VideoFacts
from salt_plugin.video.reader import VideoReadError
from salt_plugin.video.time_limit import beat


class DecordReader:
    """A video file open in this process; open it where it is read, never before a fork.

    decord is exact in whole files in which `decord_danger` finds none. In others it returns frames
    that were not asked for, and in damaged files frames that the decoder made up, without an error.

    Args:
        path: The file.
        facts: Its facts.

    Attributes:
        times: Time stamps of its frames in seconds, float64 [n], increasing.
        size: Height and width of its first frame as coded, in pixels.

    Raises:
        VideoReadError: It holds no video that decord can decode.
        DataError: decord is not installed.
    """

    def __init__(self, path: str, facts: VideoFacts) -> None:
        self._path = path
        self.times = facts.times
        self.size = facts.size
        decord = _import_decord()
        self._failures = (decord.DECORDError, RuntimeError, AssertionError, IndexError, OSError)
        try:
            self._reader = decord.VideoReader(path, num_threads=1)
        except self._failures as error:
            raise VideoReadError(path, "not a video file that decord can open") from error

    def __len__(self) -> int:
        """Number of frames, as the file states it."""
        return len(self._reader)

    def frames(self, indices: np.ndarray) -> Tensor:
        """Decodes frames.

        Args:
            indices: Frame numbers, int [T].

        Returns:
            The frames, uint8 [T, C, H, W], RGB.

        Raises:
            VideoReadError: A frame cannot be decoded.
        """
        try:
            frames = self._reader.get_batch(indices.tolist()).asnumpy()
        except self._failures as error:
            raise VideoReadError(self._path, "decoding failed in decord") from error
        beat()
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


def decord_danger(path: str, facts: VideoFacts) -> str | None:
    """Returns why decord's frames of a file cannot be trusted, None where they can.

    Raises:
        VideoReadError: It cannot be read.
    """
    if is_address(path):
        return "decord opens local files alone"
    if path.encode(errors="replace").decode() != path:
        return "its name is not UTF-8, and decord opens no such file"
    if not facts.danger and _changes_size(path):
        return f"{facts.codec} whose frame size changes: decord scales frames otherwise"
    return facts.danger or None


@lru_cache(maxsize=2**14)
def _changes_size(path: str) -> bool:
    """Decodes the keyframes of a file, and compares their sizes."""
    container, stream = open_container(path)
    stream.codec_context.skip_frame = "NONKEY"
    sizes = set()
    with container:
        try:
            for frame in container.decode(stream):
                beat()
                sizes.add((frame.height, frame.width))
        except (OSError, ValueError):
            pass  # damage is for the reader to find
    return len(sizes) > 1


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise DataError(
            "method.data.reader=decord or auto needs decord, which is not installed here: pip "
            "install decord (on other machines than x86_64, pip install decord2), or set "
            "method.data.reader=pyav."
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord
