"""Views of a video at test time: segments in time, crops in space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from salt_plugin.batch import IMAGENET_MEAN, IMAGENET_STD
from salt_plugin.config import ProbeConfig
from salt_plugin.data import ClipSampler, VideoReadError, open_video
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
        videos_at_once: Videos of a batch.
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
        self.videos_at_once = max(1, config.feature_batch_size // self.num_views)
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
            reader = open_video(path, self.reader)
            indices_st = self.sampler.segments(reader.times, config.segments)
            clips = reader.frames(indices_st.reshape(-1)).chunk(config.segments)
            return torch.cat([self.transform.crops(clip, config.crops) for clip in clips])
        except VideoReadError as error:
            return error
        finally:
            note_file(None)


def clip_batches(
    dataset: ViewDataset, start: int = 0, rank: int = 0, size: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """Decodes videos in their order, by `workers` and `stall` of the dataset's configuration.

    Args:
        dataset: The videos.
        start: The first one.
        rank: Which of every `size` batches to begin with.
        size: Processes that share the batches.

    Yields:
        The place of a video, and the views of those from there on, float32 [b, V, C, T, H, W].

    Raises:
        VideoReadError: A video cannot be read.
        ConfigError: The workers' batches do not fit into shared memory.
        LoaderError: The workers give no batch.
    """
    config, videos = dataset.config, dataset.videos_at_once
    places = range(len(dataset))
    batches = [places[at : at + videos] for at in range(start, len(dataset), videos)][rank::size]
    workers = loader_workers(config.workers)
    require_shared_memory(
        videos * dataset.num_views * clip_bytes(config.frames, config.size, config.size, value=4),
        workers,
        "--workers 0 (in a set's file workers: 0)",
        batches=len(batches),
        processes=size,
    )
    loader = ClipLoader(
        dataset,
        workers=workers,
        stall=config.stall,
        key="stall",
        batch_sampler=batches,
        collate_fn=stack_or_error,
    )
    for indices, batch in zip(batches, loader, strict=True):
        if isinstance(batch, VideoReadError):
            raise batch
        yield indices[0], batch


def stack_or_error(items: list[Any]) -> Tensor | VideoReadError:
    """Returns a batch, or the first error among its items."""
    errors = [item for item in items if isinstance(item, VideoReadError)]
    return errors[0] if errors else torch.stack(items)
