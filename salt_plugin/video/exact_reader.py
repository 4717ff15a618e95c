"""One video file, read exactly with PyAV."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from salt_plugin.video.decoding import decode_all, decode_from, picture, prime
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.inspection import open_container
from salt_plugin.video.mending import mending_line
from salt_plugin.video.reader import VideoReadError, require_memory

# Short side of what the line that is printed makes, in pixels.
_MENDED = 256
_said = False


class ExactReader:
    """A video file open in this process; frame i is the i-th that decoding from the start gives.

    A frame is found by its time stamp, decoding forward from the last keyframe shown no later,
    which the file's index leads to, or its place in the file. Where time stamps do not tell frames
    apart (MPEG-4 with B-frames) or the decoder's state depends on all that came before, frames are
    counted from the start instead, which a warning says once. Frames are turned upright, as the
    file says, and have the size of the first one.

    Args:
        path: The file.

    Attributes:
        facts: What is known of it.
        times: Time stamps of the frames in seconds, float64 [n], increasing.
        size: Height and width of its first frame as coded, in pixels.

    Raises:
        VideoReadError: If the file is missing, empty, or holds no video that FFmpeg can decode.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.facts = facts_of(path)
        self._container, self._stream = open_container(path)
        self._primed = False
        self.times = self.facts.times
        self.size = self.facts.size

    def __del__(self) -> None:
        # PyAV's objects refer to one another: left to the garbage collector, their memory piles up.
        if hasattr(self, "_container"):
            self._container.close()

    def __len__(self) -> int:
        """Number of frames; of a file that was cut, those before the damage."""
        return len(self.times)

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
        height, width = self.size[::-1] if self.facts.turn[0] else self.size
        # The only copy of the clip: a second one would take 100 MB at 1080p.
        frames = np.empty((len(unique), height, width, 3), np.uint8)
        if self.facts.sought == "start":
            self._count(unique, frames)
        else:
            self._find(unique, frames)
        if not np.array_equal(unique, indices):
            frames = frames[inverse]
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _find(self, unique: np.ndarray, frames: np.ndarray) -> None:
        wanted = self.facts.pts_n[unique]
        groups = np.searchsorted(self.facts.keys_k4[:, 0], wanted, side="right") - 1
        for group in np.unique(groups):
            chosen = groups == group
            begin = int(np.argmax(chosen))
            self._group(wanted[chosen], group, frames[begin : begin + chosen.sum()])

    def _group(self, wanted: np.ndarray, group: int, frames: np.ndarray) -> None:
        """Decodes frames between a keyframe and the next; from the start where seeking fails."""
        key_4 = self.facts.keys_k4[group]
        places = key_4[3:] if self.facts.sought == "bytes" else key_4[:2]
        for place in dict.fromkeys(places.tolist()):
            try:
                if not self._primed:
                    prime(self._container, self._stream, self.facts)
                    self._primed = True
                decoded = decode_from(
                    self._container, self._stream, key_4, self.facts.sought, place
                )
                if self._collect(decoded, wanted, frames):
                    return
            except (av.FFmpegError, OSError):
                break
        if not self._collect(decode_all(self._path), wanted, frames):
            raise VideoReadError(self._path, "decoding failed: not all of its frames are given")

    def _collect(self, decoded: Iterator[Any], wanted: np.ndarray, frames: np.ndarray) -> bool:
        """Fills in the frames of these time stamps; tells whether all have come."""
        places = {pts: place for place, pts in enumerate(wanted.tolist())}
        for frame in decoded:
            place = places.pop(frame.pts, None)
            if place is not None:
                frames[place] = picture(self._path, frame, self.facts)
            if not places:
                break
        return not places

    def _count(self, unique: np.ndarray, frames: np.ndarray) -> None:
        self._warn()
        places = {number: place for place, number in enumerate(unique.tolist())}
        for number, frame in enumerate(decode_all(self._path)):
            if number in places:
                frames[places[number]] = picture(self._path, frame, self.facts)
            if number == unique[-1]:
                return
        raise VideoReadError(self._path, f"decoding failed: it ends before frame {unique[-1]}")

    def _warn(self) -> None:
        global _said
        if not _said:
            _said = True
            line = mending_line(self._path, _MENDED, self.facts.stream)
            warnings.warn(
                f"{self._path} cannot be sought: each clip is decoded from the start of the file, "
                "as in all files of such a kind (`salt data check` lists them). This line makes "
                f"one that can: {line}",
                stacklevel=2,
            )
