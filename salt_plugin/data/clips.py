"""Which frames of a video make a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from salt_plugin.errors import ConfigError

# Seconds: far less than between two frames, far more than rounding makes of two equal times.
_TIE = 1e-9


@dataclass(frozen=True)
class ClipSampler:
    """Picks the frames of a clip at a regular step, in frames or in time.

    Short videos: a video shorter than the clip's span starts at its first frame and repeats its
    last one.

    Args:
        frames: Frames of a clip.
        step: Distance between a clip's frames, in frames of the video.
        fps: Frames per second of the clip: frame i is the video's frame whose time stamp is nearest
            to start + i / fps, so that frames repeat where the video is slower than that.

    Raises:
        ConfigError: If not exactly one of step and fps is given, or a value is not positive.
    """

    frames: int
    step: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if (self.step is None) == (self.fps is None):
            raise ConfigError(
                f"method.clip.step={self.step} and method.clip.fps={self.fps}: expected exactly "
                "one of them; set the other to null."
            )
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ConfigError(f"method.clip.{name}={value}: expected a positive number.")

    def indices(self, times_n: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Draws a clip.

        Args:
            times_n: Time stamps of the video's frames in seconds, float64 [n], increasing.
            rng: Draws the start, uniform over all frames, or with fps over all of the time, from
                which the clip fits. None takes the clip in the middle, for evaluation.

        Returns:
            Frame numbers, int64 [frames], in order.
        """
        if self.fps is not None:
            begin, last, end = self._fitting(times_n)
            start = (begin + last) / 2 if rng is None else begin + rng.random() * (end - begin)
            return self.nearest(times_n, np.array([start]))[0]
        offsets, last_start = self._span(len(times_n))
        start = last_start // 2 if rng is None else int(rng.integers(last_start + 1))
        return np.minimum(start + offsets, len(times_n) - 1)

    def segments(self, times_n: np.ndarray, count: int) -> np.ndarray:
        """Returns clips that are spread evenly over a video.

        The starts from which a clip fits are cut into `count` equal parts, and a clip starts in the
        middle of each; one segment is the centred clip. Clips overlap where the video is short.

        Args:
            times_n: Time stamps of the video's frames in seconds, float64 [n], increasing.
            count: Number of clips.

        Returns:
            Frame numbers, int64 [count, frames].
        """
        parts = 2 * np.arange(count) + 1
        if self.fps is not None:
            begin, last, _ = self._fitting(times_n)
            return self.nearest(times_n, begin + parts / (2 * count) * (last - begin))
        offsets, last_start = self._span(len(times_n))
        starts = last_start * parts // (2 * count)
        return np.minimum(starts[:, None] + offsets, len(times_n) - 1)

    def _span(self, num_frames: int) -> tuple[np.ndarray, int]:
        """Returns a clip's frames from its start, and the last start from which it fits."""
        assert self.step is not None
        # Beyond any video, and far from where 64 bits end.
        offsets = np.arange(self.frames, dtype=np.int64) * min(self.step, 2**40)
        return offsets, max(num_frames - 1 - int(offsets[-1]), 0)

    def _fitting(self, times_n: np.ndarray) -> tuple[float, float, float]:
        """Returns the times of the first and the last start that fit, and when the latter ends."""
        assert self.fps is not None
        lasts_n = np.diff(times_n, append=2 * times_n[-1] - times_n[max(len(times_n) - 2, 0)])
        # The last frame is the nearest one until half of its time is over.
        latest = times_n[-1] + lasts_n[-1] / 2 - (self.frames - 1) / self.fps + _TIE
        last = max(int(np.searchsorted(times_n, latest, side="right")) - 1, 0)
        return times_n[0], times_n[last], times_n[last] + lasts_n[last]

    def nearest(self, times_n: np.ndarray, starts_s: np.ndarray) -> np.ndarray:
        """Returns the frames nearest in time to those of clips, the later one of two.

        A clip begins with the frame that is shown at its start.

        Args:
            times_n: Time stamps of the video's frames in seconds, float64 [n], increasing.
            starts_s: When the clips start, float64 [s].

        Returns:
            Frame numbers, int64 [s, frames].
        """
        assert self.fps is not None
        shown_s = np.searchsorted(times_n, starts_s + _TIE, side="right") - 1
        wanted_st = times_n[shown_s][:, None] + np.arange(self.frames) / self.fps
        return np.searchsorted((times_n[1:] + times_n[:-1]) / 2, wanted_st + _TIE, side="right")
