"""Views of a video at test time: segments in time, crops in space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from salt_plugin.data import ClipSampler, VideoReadError, open_reader
from salt_plugin.data.loader import note_file
from salt_plugin.transforms import SALTEvalTransform
from salt_plugin.video.opening import DEFAULT_READER


class Views(NamedTuple):
    """How many views a video has (paper, section 6: frames x segments x crops).

    Attributes:
        segments: Clips that are spread evenly over the video.
        crops: Crops of each clip, spread evenly along its longer side.
    """

    segments: int = 1
    crops: int = 1

    @property
    def total(self) -> int:
        """Views of a video, V."""
        return self.segments * self.crops


class ViewDataset(Dataset[Tensor | VideoReadError]):
    """All views of each video; what cannot be read is returned as the error.

    Errors of several arguments do not survive the way out of a loader worker when they are raised.

    Args:
        paths: Videos, or images, which are videos of one frame.
        clip_sampler: Picks the frames of a clip.
        transform: Makes the crops.
        views: How many.

    Attributes:
        reader: What reads videos, the exact one whatever a run was trained with.
    """

    def __init__(
        self,
        paths: list[str],
        clip_sampler: ClipSampler,
        transform: SALTEvalTransform,
        views: Views,
    ) -> None:
        self.paths = paths
        self.clip_sampler = clip_sampler
        self.transform = transform
        self.views = views
        self.reader = DEFAULT_READER

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.paths)

    def first(self) -> tuple[Tensor, Tensor]:
        """Returns the first view of the first video, normalised and in [0, 1].

        Returns:
            Both float32 [C, T, H, W].

        Raises:
            VideoReadError: It cannot be read.
        """
        views = self[0]
        if isinstance(views, VideoReadError):
            raise views
        return views[0], self.transform.denormalize(views[0])

    def __getitem__(self, index: int) -> Tensor | VideoReadError:
        """Returns the views of a video, float32 [V, C, T, H, W], segments before crops."""
        path = self.paths[index]
        note_file(path)
        try:
            return self._views(path)
        except VideoReadError as error:
            return error
        finally:
            note_file(None)

    def _views(self, path: str) -> Tensor:
        reader = open_reader(path, self.reader)
        indices_st = self.clip_sampler.segments(reader.times, self.views.segments)
        frames = reader.frames(indices_st.reshape(-1))
        clips = frames.chunk(self.views.segments)
        return torch.cat([self.transform.crops(clip, self.views.crops) for clip in clips])
