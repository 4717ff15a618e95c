"""Features of a list of videos, from disk where they are already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from salt_plugin.config import ProbeConfig
from salt_plugin.data import ClipSampler
from salt_plugin.evaluation.cache import FeatureStore, files_digest
from salt_plugin.evaluation.controls import (
    ClipControl,
    ShuffledFrames,
    as_they_are,
    frozen_frame,
)
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.features import Extraction, Progress, clip_batches, encode
from salt_plugin.evaluation.stored import StoredFeatures
from salt_plugin.evaluation.views import ViewDataset, Views
from salt_plugin.transforms import SALTEvalTransform


class Wanted(NamedTuple):
    """Which features of a list are wanted.

    Attributes:
        paths: The videos.
        views: Of each of them.
        control: None, `shuffled` or `frozen`.
        seed: Of the shuffling.
        tokens: Whether tokens are kept beside their means.
    """

    paths: list[str]
    views: Views
    control: str | None
    seed: int
    tokens: bool


def extract(
    encoder: FrozenEncoder,
    wanted: Wanted,
    config: ProbeConfig,
    how: Extraction,
    root: Path,
    progress: Progress,
    title: str,
) -> StoredFeatures:
    """Returns features from their store, after computing what it lacks.

    Args:
        encoder: What is probed.
        wanted: Which features.
        config: Frames, step or rate, and size of a clip.
        how: Device, precision, batch size and workers.
        root: Folder of all stores.
        progress: Told of every batch.
        title: Of the progress.

    Raises:
        DataError: A video cannot be read, or the store holds other features or has no space.
    """
    dataset = view_dataset(wanted.paths, wanted.views, config, encoder.mean, encoder.std)
    sampler = dataset.clip_sampler
    shape = (
        len(wanted.paths),
        wanted.views.total,
        encoder.tokens(config.frames, config.size),
        encoder.embed_dim,
    )
    key = {
        "encoder": encoder.fingerprint,
        "videos": files_digest(wanted.paths),
        "reader": dataset.reader,
        "clip": [config.frames, sampler.step, sampler.fps, config.size],
        "transform": ["SALTEvalTransform", encoder.mean, encoder.std],
        "views": list(wanted.views),
        "control": [wanted.control, wanted.seed]
        if wanted.control == "shuffled"
        else [wanted.control],
        "precision": how.precision,
    }
    store = FeatureStore(root, key, shape, wanted.tokens)
    if not wanted.tokens:
        with_tokens = FeatureStore(root, key, shape, tokens=True)
        if with_tokens.rows_done == shape[0]:
            return with_tokens.read()._replace(tokens=None)
    if store.rows_done < shape[0]:
        control = _control(wanted, config.frames)
        with store.writing() as writer:
            for rows, clips in clip_batches(dataset, how, writer.rows):
                tokens = encode(encoder, control(clips, rows), how)
                writer.add(tokens, encoder.pool(tokens))
                progress(title, writer.rows, shape[0])
    return store.read()


def view_dataset(
    paths: list[str],
    views: Views,
    config: ProbeConfig,
    mean: Sequence[float],
    std: Sequence[float],
) -> ViewDataset:
    """Returns the clips of videos as an evaluation sees them.

    Args:
        paths: The videos.
        views: Of each of them.
        config: Frames, step or rate, and size of a clip.
        mean: Of each channel, for values in [0, 1].
        std: Likewise.
    """
    sampler = ClipSampler.configured(config.frames, config.step, config.fps)
    return ViewDataset(paths, sampler, SALTEvalTransform(config.size, mean, std), views)


def _control(wanted: Wanted, frames: int) -> ClipControl:
    if wanted.control == "shuffled":
        return ShuffledFrames(len(wanted.paths), frames, wanted.seed)
    return frozen_frame if wanted.control == "frozen" else as_they_are
