"""One video file, read exactly with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from salt_plugin.data.inspection import open_container, read_facts
from salt_plugin.data.reader import VideoReadError, require_memory, require_regular_file


class ExactReader:
    """A video file open in this process; frame i is the i-th that decoding from the start gives.

    A frame is found by its time stamp, decoding forward from the last keyframe shown no later.
    Where time stamps do not tell frames apart (MPEG-4 with B-frames) or the file has no index to
    seek by (MPEG-2), frames are counted from the start instead. Frames are turned upright, as the
    file's rotation says.

    Args:
        path: The file.

    Attributes:
        fps: Average frame rate in frames per second; 0 when the file does not tell.
        size: Height and width of its frames as coded, in pixels.
        facts: What its packets tell.

    Raises:
        VideoReadError: If the file is missing, empty, or holds no video that FFmpeg can decode.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._container, self._stream = open_container(path)
        self.facts = read_facts(path, self._container, self._stream)
        self.fps = self.facts.fps
        self.size = self.facts.size
        self._length = len(self.facts.pts_n) if self.facts.timed else _counted(path)

    def __del__(self) -> None:
        # PyAV's objects refer to one another: left to the garbage collector, their memory piles up.
        if hasattr(self, "_container"):
            self._container.close()

    def __len__(self) -> int:
        """Number of frames."""
        return self._length

    def frames(self, indices: np.ndarray) -> Tensor:
        """Decodes frames.

        Args:
            indices: Frame numbers, int [T]; repeated ones are decoded once.

        Returns:
            The frames, uint8 [T, C, H, W], RGB.

        Raises:
            VideoReadError: If a frame cannot be decoded, or is damaged as far as the decoder tells.
        """
        unique, inverse = np.unique(indices, return_inverse=True)
        if len(unique) == 0 or unique[0] < 0 or unique[-1] >= len(self):
            raise VideoReadError(
                self._path, f"frames {unique[:1]} to {unique[-1:]} are not within its {len(self)}"
            )
        require_memory(self._path, len(unique), self.size)
        decoded = self._timed(unique) if self.facts.timed else self._counted(unique)
        if len({picture.shape for picture in decoded}) > 1:
            raise VideoReadError(self._path, "its frames have several sizes")
        frames = np.stack([decoded[place] for place in inverse])
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _timed(self, unique: np.ndarray) -> list[np.ndarray]:
        wanted = self.facts.pts_n[unique]
        groups = np.searchsorted(self.facts.keys_kd[:, 0], wanted, side="right") - 1
        found: list[np.ndarray] = []
        for group in np.unique(groups):
            found += self._group(wanted[groups == group], *self.facts.keys_kd[group].tolist())
        return found

    def _group(self, wanted: np.ndarray, key_pts: int, key_dts: int) -> list[np.ndarray]:
        """Decodes frames between a keyframe and the next; from the start where seeking fails."""
        for place in dict.fromkeys((key_pts, key_dts)):
            try:
                found = self._collect(self._from(place, key_pts), wanted)
            except (av.FFmpegError, OSError):
                break
            if len(found) == len(wanted):
                return found
        found = self._collect(decode_all(self._path), wanted)
        if len(found) < len(wanted):
            raise VideoReadError(
                self._path, f"decoding failed: {len(wanted) - len(found)} frames are never given"
            )
        return found

    def _collect(self, decoded: Iterator[Any], wanted: np.ndarray) -> list[np.ndarray]:
        times, found = set(wanted.tolist()), []
        for frame in decoded:
            if frame.pts in times:
                found.append(picture(self._path, frame))
            if len(found) == len(wanted):
                break
        return found

    def _from(self, place: int, key_pts: int) -> Iterator[Any]:
        """Decodes from a place in the file on; nothing where a seek leads past the keyframe."""
        self._container.seek(place, stream=self._stream)
        start = None
        for packet in self._container.demux(self._stream):
            if start is None:
                if not packet.is_keyframe or packet.pts is None or packet.pts > key_pts:
                    return
                start = packet.pts
            # What is shown before the first keyframe needs frames before it, which are not there.
            if packet.pts is None or packet.pts >= start:
                yield from packet.decode()

    def _counted(self, unique: np.ndarray) -> list[np.ndarray]:
        wanted = set(unique.tolist())
        found = []
        for number, frame in enumerate(decode_all(self._path)):
            if number in wanted:
                found.append(picture(self._path, frame))
            if len(found) == len(unique):
                return found
        raise VideoReadError(self._path, f"decoding failed: it ends before frame {unique[-1]}")


def decode_all(path: str) -> Iterator[Any]:
    """Decodes a file from its start.

    Yields:
        PyAV's frames, in order of display.

    Raises:
        VideoReadError: Where decoding fails.
    """
    container, stream = open_container(path)
    with container:
        try:
            yield from container.decode(stream)
        except (av.FFmpegError, OSError) as error:
            raise _failed(path, error) from error


def _counted(path: str) -> int:
    state = require_regular_file(path)
    return _count(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _count(path: str, size: int, modified: int) -> int:
    """Decodes a file once to learn its length; size and time of change tell it from another."""
    count = sum(1 for _ in decode_all(path))
    if count == 0:
        raise VideoReadError(path, "the video has no frames")
    return count


def picture(path: str, frame: Any) -> np.ndarray:
    """Returns a decoded frame, upright, uint8 [H, W, 3].

    Raises:
        VideoReadError: If the decoder marked it as damaged.
    """
    if frame.is_corrupt:
        raise VideoReadError(path, f"decoding failed: the frame at {frame.time} s is damaged")
    pixels = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, frame.rotation // 90) if frame.rotation else pixels


def _failed(path: str, error: Exception) -> VideoReadError:
    return VideoReadError(path, f"decoding failed: {getattr(error, 'strerror', None) or error}")
