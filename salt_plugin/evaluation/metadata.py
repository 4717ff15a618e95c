"""A control without pictures: classes predicted from the metadata of the files alone."""

from __future__ import annotations

import av
import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from torch import Tensor

from salt_plugin.data import VideoReadError
from salt_plugin.video.containers import open_container
from salt_plugin.video.images import FramesReader, image_size, is_frames, is_image
from salt_plugin.video.storage import state_of

# From here on scikit-learn advises its histogram-based trees, which need enough samples a leaf.
MANY = 10_000


def metadata(paths: list[str]) -> np.ndarray:
    """Reads headers, no frame.

    Args:
        paths: Videos or images.

    Returns:
        float64 [n, 6]: bytes, frames per second, number of frames, width, height, seconds; 0 where
        a header states none, as of the bytes of a folder of frames.

    Raises:
        VideoReadError: A file has no video header.
    """
    return np.array([_header(path) for path in paths])


def metadata_predictions(
    train: list[str], train_n: Tensor, test: list[str], seed: int
) -> np.ndarray:
    """Returns the classes, int64 [m], that gradient-boosted trees read off the metadata.

    Args:
        train: Files to learn from.
        train_n: Their classes, int64 [n].
        test: Files to classify.
        seed: Of the trees.
    """
    kind = HistGradientBoostingClassifier if len(train) >= MANY else GradientBoostingClassifier
    return kind(random_state=seed).fit(metadata(train), train_n.numpy()).predict(metadata(test))


def _header(path: str) -> list[float]:
    if is_frames(path):
        frames = FramesReader(path)
        height, width = frames.size
        return [0, len(frames) / frames.seconds, len(frames), width, height, frames.seconds]
    if is_image(path):
        height, width = image_size(path)
        return [state_of(path).size, 0, 1, width, height, 0]
    try:
        container, video = open_container(path)
    except VideoReadError as error:
        raise VideoReadError(path, f"no video header: {error.reason}") from error
    with container:
        seconds = (container.duration or 0) / av.time_base
        rate = float(video.average_rate or 0)
        return [state_of(path).size, rate, video.frames, video.width, video.height, seconds]
