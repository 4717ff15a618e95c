"""Which frames of a video make a clip."""

from __future__ import annotations

import math

import numpy as np

from salt_plugin.errors import ConfigError, DataError


class ClipSampler:
    """Picks the frames of a clip at a regular step, in frames or in time.

    Short videos: a video shorter than the clip's span starts at its first frame and repeats its
    last one.

    Args:
        frames: Frames of a clip.
        step: Distance between a clip's frames, in frames of the video.
        fps: Frames per second of the clip: frame i is the video's frame nearest to the time
            start + i / fps, so that frames repeat where the video is slower than that.

    Raises:
        ConfigError: If not exactly one of step and fps is given, or a value is not positive.
    """

    def __init__(self, frames: int, step: int | None = None, fps: float | None = None) -> None:
        if (step is None) == (fps is None):
            raise ConfigError(
                f"method.clip.step={step} and method.clip.fps={fps}: expected exactly one of them; "
                "set the other to null."
            )
        for name, value in (("frames", frames), ("step", step), ("fps", fps)):
            if value is not None and not value > 0:
                raise ConfigError(f"method.clip.{name}={value}: expected a positive number.")
        self.frames = frames
        self.step = step
        self.fps = fps

    @classmethod
    def configured(cls, frames: int, step: int, fps: float | None) -> ClipSampler:
        """Returns the sampler of a configuration, where a rate goes before a step."""
        return cls(frames, None if fps else step, fps)

    def indices(
        self, num_frames: int, video_fps: float, rng: np.random.Generator | None
    ) -> np.ndarray:
        """Draws a clip.

        Args:
            num_frames: Frames of the video.
            video_fps: Frame rate of the video, in frames per second; only used with fps.
            rng: Draws the start, uniform over all frames from which the clip fits. None takes the
                clip in the middle, for evaluation.

        Returns:
            Frame numbers, int64 [frames], in order.

        Raises:
            DataError: If the clip is sampled by fps and the video states no frame rate.
        """
        offsets, last_start = self._span(num_frames, video_fps)
        start = last_start // 2 if rng is None else int(rng.integers(last_start + 1))
        return np.minimum(start + offsets, num_frames - 1)

    def segments(self, num_frames: int, video_fps: float, count: int) -> np.ndarray:
        """Returns clips that are spread evenly over a video.

        The starts from which a clip fits are cut into `count` equal parts, and a clip starts in the
        middle of each; one segment is the centred clip. Clips overlap where the video is short.

        Args:
            num_frames: Frames of the video.
            video_fps: Frame rate of the video, in frames per second; only used with fps.
            count: Number of clips.

        Returns:
            Frame numbers, int64 [count, frames].

        Raises:
            DataError: As `indices`.
        """
        offsets, last_start = self._span(num_frames, video_fps)
        starts = last_start * (2 * np.arange(count) + 1) // (2 * count)
        return np.minimum(starts[:, None] + offsets, num_frames - 1)

    def _span(self, num_frames: int, video_fps: float) -> tuple[np.ndarray, int]:
        """Returns a clip's frames from its start, and the last start from which it fits."""
        # Beyond any video, and far from where 64 bits end.
        step = float(min(self._step_in(video_fps), 2**40))
        offsets = np.floor(np.arange(self.frames) * step + 0.5).astype(np.int64)
        return offsets, max(num_frames - 1 - int(offsets[-1]), 0)

    def _step_in(self, video_fps: float) -> float:
        if self.step is not None:
            return self.step
        if not (math.isfinite(video_fps) and video_fps > 0):
            raise DataError(
                f"the video states no usable frame rate ({video_fps}), which "
                f"method.clip.fps={self.fps} needs; use method.clip.step instead."
            )
        assert self.fps is not None
        return video_fps / self.fps
