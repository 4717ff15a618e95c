"""Features of clips, from encoders that stay as they are; clips stream and are not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Subset

from salt_plugin.data import VideoReadError
from salt_plugin.data.loader import ClipLoader
from salt_plugin.data.shared_memory import clip_bytes, require_shared_memory
from salt_plugin.data.workers import loader_workers
from salt_plugin.evaluation.controls import ClipControl
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.views import ViewDataset

Progress = Callable[[str, int, int], None]
"""Called with a title, what is done, and what there is to do."""


def quiet(title: str, done: int, total: int) -> None:
    """Shows no progress."""


class Extraction(NamedTuple):
    """How features are computed; none of it but the precision changes them.

    Attributes:
        device: Where the encoder runs.
        precision: `bf16` (autocast) or `32`.
        batch_size: Clips that the encoder sees at once.
        workers: Processes that decode videos; -1: one for each core, 0: none.
        stall: Seconds to wait for a batch of theirs; None: for ever.
    """

    device: str = "cpu"
    precision: str = "32"
    batch_size: int = 64
    workers: int = 0
    stall: float | None = 1800.0


def clip_batches(
    dataset: ViewDataset, how: Extraction, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decodes videos in their order.

    Args:
        dataset: The videos.
        how: Batch size and workers.
        start: The first one.

    Yields:
        Rows, int64 [b], and their views, float32 [b, V, C, T, H, W].

    Raises:
        VideoReadError: A video cannot be read.
        ConfigError: The workers' batches have no room.
        LoaderError: Workers give no batch.
    """
    views = dataset.views.total
    videos = max(1, how.batch_size // views)
    workers = loader_workers(how.workers)
    height, width = dataset.transform.size
    require_shared_memory(
        videos * views * clip_bytes(dataset.clip_sampler.frames, height, width, value=4),
        workers,
        "--workers 0 (in a set's file workers: 0)",
        batches=-(-(len(dataset) - start) // videos),
    )
    loader = ClipLoader(
        Subset(dataset, range(start, len(dataset))),
        workers=workers,
        stall=how.stall,
        key="stall",
        batch_size=videos,
        collate_fn=_stack,
    )
    row = start
    for batch in loader:
        if isinstance(batch, VideoReadError):
            raise batch
        yield torch.arange(row, row + len(batch)), batch
        row += len(batch)


def encode(encoder: FrozenEncoder, clips_bvcthw: Tensor, how: Extraction) -> Tensor:
    """Returns the tokens of all views, float32 [b, V, N, D] on the device of the encoder."""
    clips = clips_bvcthw.flatten(0, 1).split(how.batch_size)
    device = torch.device(how.device)
    with torch.autocast(device.type, torch.bfloat16, enabled=how.precision == "bf16"):
        tokens = torch.cat([encoder(clip.to(device, non_blocking=True)).float() for clip in clips])
    return tokens.unflatten(0, clips_bvcthw.shape[:2])


def mean_features(
    encoders: Mapping[str, tuple[FrozenEncoder, ClipControl]],
    dataset: ViewDataset,
    how: Extraction,
    progress: Progress = quiet,
    title: str = "features",
) -> dict[str, Tensor]:
    """Returns the features of clips (`FrozenEncoder.pool`) for several encoders, decoded once.

    Args:
        encoders: By name: the encoder, and what is done to its clips first.
        dataset: The videos.
        how: Device, precision, batch size and workers.
        progress: Told of every batch.
        title: Of the progress.

    Returns:
        For each name, float32 [n, V, D].

    Raises:
        VideoReadError: A video cannot be read.
    """
    shape = (len(dataset), dataset.views.total)
    means = {
        name: torch.empty(*shape, encoder.embed_dim) for name, (encoder, _) in encoders.items()
    }
    for rows, clips in clip_batches(dataset, how):
        for name, (encoder, control) in encoders.items():
            means[name][rows] = encoder.pool(encode(encoder, control(clips, rows), how)).cpu()
        progress(title, int(rows[-1]) + 1, len(dataset))
    return means


def _stack(items: Sequence[Tensor | VideoReadError]) -> Tensor | VideoReadError:
    clips = []
    for item in items:
        if isinstance(item, VideoReadError):
            return item
        clips.append(item)
    return torch.stack(clips)
