"""Views of a video at test time: segments in time, crops in space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.config import ProbeConfig
from salt_plugin.data import ClipSampler, VideoReadError, open_reader
from salt_plugin.data.loader import ClipLoader, note_file
from salt_plugin.data.shared_memory import clip_bytes, require_shared_memory
from salt_plugin.data.workers import loader_workers
from salt_plugin.transforms import SALTEvalTransform
from salt_plugin.video.opening import DEFAULT_READER


class ViewDataset(Dataset[Tensor | VideoReadError]):
    """All views of each video (paper, section 6: frames x segments x crops).

    An unreadable video is returned as its error: torch cannot raise errors of several arguments
    again outside of a loader worker.

    Args:
        paths: Videos, or images, which are videos of one frame.
        config: Frames, step or rate, size, segments and crops of a clip.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.

    Attributes:
        num_views: Views of a video, V.
        reader: Reads the videos; always the exact one, whatever a run was trained with.
    """

    def __init__(
        self,
        paths: list[str],
        config: ProbeConfig,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        self.paths = paths
        self.config = config
        self.num_views = config.segments * config.crops
        self.sampler = ClipSampler(config.frames, None if config.fps else config.step, config.fps)
        self.transform = SALTEvalTransform(config.size, mean, std)
        self.reader = DEFAULT_READER

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | VideoReadError:
        """Returns the views of a video, float32 [V, C, T, H, W], segments before crops."""
        path, config = self.paths[index], self.config
        note_file(path)
        try:
            reader = open_reader(path, self.reader)
            indices_st = self.sampler.segments(reader.times, config.segments)
            clips = reader.frames(indices_st.reshape(-1)).chunk(config.segments)
            return torch.cat([self.transform.crops(clip, config.crops) for clip in clips])
        except VideoReadError as error:
            return error
        finally:
            note_file(None)


def clip_batches(dataset: ViewDataset, start: int = 0) -> Iterator[Tensor]:
    """Decodes videos in their order, by `workers` and `stall` of the dataset's configuration.

    Args:
        dataset: The videos.
        start: The first one.

    Yields:
        Views of the next videos, float32 [b, V, C, T, H, W].

    Raises:
        VideoReadError: A video cannot be read.
        ConfigError: The workers' batches do not fit into shared memory.
        LoaderError: The workers give no batch.
    """
    config = dataset.config
    videos = max(1, config.feature_batch_size // dataset.num_views)
    workers = loader_workers(config.workers)
    require_shared_memory(
        videos * dataset.num_views * clip_bytes(config.frames, config.size, config.size, value=4),
        workers,
        "--workers 0 (in a set's file workers: 0)",
        batches=-(-(len(dataset) - start) // videos),
    )
    loader = ClipLoader(
        Subset(dataset, range(start, len(dataset))),
        workers=workers,
        stall=config.stall,
        key="stall",
        batch_size=videos,
        collate_fn=_stack,
    )
    for batch in loader:
        if isinstance(batch, VideoReadError):
            raise batch
        yield batch


def _stack(items: list[Any]) -> Tensor | VideoReadError:
    errors = [item for item in items if isinstance(item, VideoReadError)]
    return errors[0] if errors else torch.stack(items)
