"""One video file, read exactly with PyAV."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np

from salt_plugin.video.containers import open_container
from salt_plugin.video.decoding import decode_all, decode_from, picture
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.mending import mending_line
from salt_plugin.video.reader import StreamReader, VideoReadError

# Short side, in pixels, of the video that the suggested ffmpeg command writes.
_MENDED = 256
# Frames that a seek has to save: it empties the decoder, and reads from the keyframe on again.
_WORTH_A_SEEK = 8
# Frames that a decoder may give before one that is shown earlier.
_LATE = 64
_warned = False


class ExactReader(StreamReader):
    """A video file open in this process; frame i is the i-th that decoding from the start gives.

    A frame is found by its time stamp, decoding forward from the last keyframe shown no later.
    Where time stamps do not tell frames apart (MPEG-4 with B-frames) or the decoder's state depends
    on all that came before, frames are counted from the start instead, which a warning says once.
    Frames are turned upright, as the file says, and have the size of the first one. Of a file that
    was cut there are those before the damage.

    Args:
        path: The file.

    Attributes:
        facts: Its facts.
        times: Time stamps of the frames in seconds, float64 [n], increasing.
        size: Height and width of its first frame as coded, in pixels.

    Raises:
        VideoReadError: The file is missing, empty, or holds no video that FFmpeg can decode.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.facts = facts_of(path)
        self._container, self._stream = open_container(path)
        self.times = self.facts.times
        self.size = self.facts.size

    def __del__(self) -> None:
        # PyAV's objects refer to one another: left to the garbage collector, their memory piles up.
        if hasattr(self, "_container"):
            self._container.close()

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of its frames, upright."""
        return self.size[::-1] if self.facts.turn[0] else self.size

    def stream(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes frames one after the other, going on from each to the next.

        What lies between two frames is decoded too, unless a keyframe makes a jump shorter.

        Args:
            indices: Frame numbers, int [n], increasing.

        Yields:
            The frames, uint8 [H, W, 3], RGB.

        Raises:
            VideoReadError: A frame cannot be decoded, or is damaged as far as the decoder tells;
                those before it have been given.
        """
        if len(indices) == 0 or indices[0] < 0 or indices[-1] >= len(self):
            raise VideoReadError(
                self._path,
                f"frames {indices[:1]} to {indices[-1:]} are not within its {len(self)}",
            )
        if not self.facts.seekable:
            self._warn()
            yield from self._in_order(enumerate(decode_all(self._path)), indices)
            return
        pts_n, keys_k = self.facts.pts_n, self.facts.keys_k3[:, 0]
        wanted = pts_n[indices]
        groups = np.searchsorted(keys_k, wanted, side="right") - 1
        skipped = np.searchsorted(pts_n, keys_k)[groups[1:]] - indices[:-1]
        ends = [*(1 + np.flatnonzero(skipped > _WORTH_A_SEEK)), len(wanted)]
        begin = 0
        for end in ends:
            while begin < end:
                given = begin
                with suppress(av.FFmpegError, OSError, _MissingError):
                    decoded = decode_from(
                        self._container, self._stream, self.facts.keys_k3, groups[begin]
                    )
                    named = ((frame.pts, frame) for frame in decoded)
                    for pixels in self._in_order(named, wanted[begin:end]):
                        yield pixels
                        given += 1
                if given == begin:  # seeking fails here
                    group = slice(begin, begin + int((groups[begin:end] == groups[begin]).sum()))
                    named = ((frame.pts, frame) for frame in decode_all(self._path))
                    yield from self._in_order(named, wanted[group])
                    given = group.stop
                begin = given

    def _in_order(
        self, decoded: Iterable[tuple[int, Any]], wanted: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yields the frames that are wanted, by what they are named here, in their order."""
        names = wanted.tolist()
        places = {name: place for place, name in enumerate(names)}
        early: dict[int, np.ndarray] = {}
        given = passed = 0
        for name, frame in decoded:
            place = places.get(name)
            if place is not None and place >= given:
                early[place] = picture(self._path, frame, self.facts)
            while given in early:
                yield early.pop(given)
                given, passed = given + 1, 0
            if given == len(names):
                return
            passed += name is not None and name > names[given]
            if passed > _LATE:
                break
        raise _MissingError(self._path, "decoding failed: not all of its frames are given")

    def _warn(self) -> None:
        global _warned
        if not _warned:
            _warned = True
            warnings.warn(
                f"{self._path} cannot be sought: each clip is decoded from the start of the file, "
                "as in all files of such a kind (`salt data check` lists them). This line makes "
                f"one that can: {mending_line(self._path, _MENDED, self.facts.stream)}",
                stacklevel=2,
            )


class _MissingError(VideoReadError):
    """Not all frames came."""
