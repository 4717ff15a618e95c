"""Sliding windows over videos: which there are, and the clips that show them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from salt_plugin.data import ClipSampler
from salt_plugin.errors import ConfigError
from salt_plugin.video.reader import Reader, StreamReader

# Seconds: far less than between two frames, far more than rounding makes of two equal times.
_TIE = 1e-9
SHORTEST = 0.01  # seconds


@dataclass(frozen=True)
class Length:
    """A length of video: whole frames, or seconds."""

    value: float
    in_seconds: bool

    def __str__(self) -> str:
        """As `parse_length` reads it."""
        return f"{self.value:g}" + "s" * self.in_seconds


def parse_length(text: str | float, key: str) -> Length:
    """Reads a length such as `64` (frames) or `2.5s`.

    Args:
        text: The length.
        key: Where it is given, for the message.

    Raises:
        ConfigError: It is none, or shorter than a frame or 0.01 s.
    """
    found = re.fullmatch(r"(\d+|\d*\.\d+(?=s)|\d+\.\d*(?=s))(s?)", str(text).strip())
    if not found or float(found[1]) < (SHORTEST if found[2] else 1) or float(found[1]) > 2**40:
        raise ConfigError(
            f"{key} {text}: expected a whole number of frames such as 64, or seconds such as 2.5s"
        )
    return Length(float(found[1]), bool(found[2]))


class Plan(NamedTuple):
    """The windows of a video.

    Attributes:
        indices_wt: Frame numbers of their clips, int64 [w, T].
        starts_w: When they start, in seconds from the first frame of the video, float64 [w].
        ends_w: When they end.
    """

    indices_wt: np.ndarray
    starts_w: np.ndarray
    ends_w: np.ndarray


@dataclass(frozen=True)
class Windows:
    """Windows of one length at a regular distance, and the clip of each, spread evenly over it.

    The first window starts with the video; all lie within it. A video that is shorter than a
    window has one, whose clip repeats the last frame.

    Args:
        frames: Frames of a clip, T.
        window: Length of a window.
        stride: From the start of a window to that of the next.
    """

    frames: int
    window: Length
    stride: Length

    def of(self, times_n: np.ndarray) -> Plan:
        """Returns the windows of a video.

        Args:
            times_n: Time stamps of its frames in seconds, float64 [n], increasing.
        """
        count, times_n = len(times_n), times_n - times_n[0]
        end = 2 * times_n[-1] - times_n[max(count - 2, 0)]  # of the last frame
        if self.stride.in_seconds:
            number = max(1, math.ceil((end - _TIE) / self.stride.value))
            starts_w = np.arange(number) * self.stride.value
            shown_w = np.searchsorted(times_n, starts_w + _TIE, side="right") - 1
        else:
            shown_w = np.arange(0, count, int(self.stride.value))
            starts_w = times_n[shown_w]
        length = self.window.value
        if self.window.in_seconds:
            fits_w = starts_w + length <= end + _TIE
        else:
            fits_w = shown_w + int(length) <= count
        fits_w[0] = True
        shown_w, starts_w = shown_w[fits_w], starts_w[fits_w]
        if self.window.in_seconds:
            sampler = ClipSampler(self.frames, fps=self.frames / length)
            indices_wt = sampler.nearest(times_n, starts_w)
            return Plan(indices_wt, starts_w, np.minimum(starts_w + length, end))
        offsets_t = np.arange(self.frames) * int(length) // self.frames
        stop_w = shown_w + int(length)
        ends_w = np.append(times_n, end)[np.minimum(stop_w, count)]
        return Plan(np.minimum(shown_w[:, None] + offsets_t, count - 1), times_n[shown_w], ends_w)


def read_clips(
    reader: Reader, indices_wt: np.ndarray, view: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Reads clips that start one after the other; each frame is decoded and transformed once.

    Args:
        reader: The video.
        indices_wt: Frame numbers, int64 [w, T], increasing in both.
        view: Applied to each frame, uint8 [3, H, W] to [3, h, w].

    Yields:
        Clips, uint8 [3, T, h, w].

    Raises:
        VideoReadError: A frame cannot be decoded; the clips before it have been given.
    """
    unique = np.unique(indices_wt)
    if isinstance(reader, StreamReader):
        streamed = (np.require(one, requirements="W") for one in reader.stream(unique))
        frames = (torch.from_numpy(one).permute(2, 0, 1) for one in streamed)
    else:
        frames = iter(reader.frames(unique))
    coming = zip(unique.tolist(), frames, strict=False)
    held: dict[int, Tensor] = {}
    for row in indices_wt.tolist():
        held = {number: frame for number, frame in held.items() if number >= row[0]}
        while row[-1] not in held:
            number, frame = next(coming)
            held[number] = view(frame)
        yield torch.stack([held[number] for number in row], dim=1)
