"""Features of a list of videos by a frozen encoder, from disk where they are already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.data import VideoReadError
from salt_plugin.evaluation.cache import FeatureStore, StoredFeatures, cache_root, files_digest
from salt_plugin.evaluation.controls import frame_orders, frozen_frame, shuffled
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.lists import Lists, read_lists
from salt_plugin.evaluation.views import ViewDataset, clip_batches

SPLITS = ("train", "val", "test")

Progress = Callable[[str, int, int], None]
"""Called with a title, the number of things done, and of all."""


def quiet(title: str, done: int, total: int) -> None:
    """Shows no progress."""


def precision_of(config: ProbeConfig, device: torch.device) -> str:
    """Returns `bf16` or `32`."""
    auto = "bf16" if device.type == "cuda" else "32"
    return auto if config.precision == "auto" else config.precision


def encode(encoder: FrozenEncoder, clips_bvcthw: Tensor, config: ProbeConfig) -> Tensor:
    """Returns the tokens of all views, float32 [b, V, N, D] on the device of the encoder."""
    device = encoder.device
    clips = clips_bvcthw.flatten(0, 1).split(config.feature_batch_size)
    bf16 = precision_of(config, device) == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        tokens = torch.cat([encoder(clip.to(device, non_blocking=True)).float() for clip in clips])
    return tokens.unflatten(0, clips_bvcthw.shape[:2])


def stored_features(
    encoder: FrozenEncoder,
    lists: Lists,
    split: str,
    config: ProbeConfig,
    control: str | None = None,
    progress: Progress = quiet,
) -> StoredFeatures:
    """Returns the features of a split, after computing those that are not stored.

    Args:
        encoder: On the device where it computes.
        lists: As `read_lists` gives them.
        split: `train`, which has one view of a video, `val` or `test`.
        config: Clips and views; tokens are kept for the protocol `attentive`.
        control: None, `shuffled` or `frozen`.
        progress: Called after every batch.

    Raises:
        DataError: A video cannot be read, or the store is damaged, in use or has no space.
    """
    paths = getattr(lists, split).paths
    if split == "train":
        config = replace(config, segments=1, crops=1)
    seed = config.seed + SPLITS.index(split)
    dataset = ViewDataset(paths, config, encoder.mean, encoder.std)
    tokens = encoder.tokens(config.frames, config.size)
    shape = (len(paths), dataset.num_views, tokens, encoder.embed_dim)
    key = {
        "encoder": encoder.fingerprint,
        "videos": files_digest(paths),
        "reader": dataset.reader,
        "clip": [config.frames, dataset.sampler.step, dataset.sampler.fps, config.size],
        "transform": ["SALTEvalTransform", encoder.mean, encoder.std],
        "views": [config.segments, config.crops],
        "control": [control, seed] if control == "shuffled" else [control],
        "precision": precision_of(config, encoder.device),
    }
    root = cache_root(config.cache)
    store = with_tokens = FeatureStore(root, key, shape, tokens=True)
    if "attentive" not in config.protocols:
        if with_tokens.rows_done == len(paths):
            return with_tokens.read()._replace(tokens=None)
        store = FeatureStore(root, key, shape, tokens=False)

    def tokens_from(start: int) -> Iterator[Tensor]:
        order_nt = frame_orders(len(paths), config.frames, seed)
        for clips in clip_batches(dataset, start):
            stop = start + len(clips)
            if control == "shuffled":
                clips = shuffled(clips, order_nt[start:stop])
            elif control == "frozen":
                clips = frozen_frame(clips)
            yield encode(encoder, clips, config)
            start = stop

    if store.rows_done < len(paths):
        title = f"features, {split}" + (f", {control}" if control else "")
        store.extend(tokens_from, lambda done: progress(title, done, len(paths)), encoder.pool)
    return store.read()


def first_clip(encoder: FrozenEncoder, config: ProbeConfig) -> tuple[Tensor, Tensor]:
    """Returns the first view of the first test video, for pictures.

    Returns:
        Its frames, float32 [T, H, W, 3] in [0, 1], and its tokens without `[cls]`, float32
        [N, D].

    Raises:
        VideoReadError: It cannot be read.
    """
    dataset = ViewDataset(read_lists(config).test.paths, config, encoder.mean, encoder.std)
    views_vcthw = dataset[0]
    if isinstance(views_vcthw, VideoReadError):
        raise views_vcthw
    frames_cthw = dataset.transform.denormalize(views_vcthw[0])
    tokens_nd = encode(encoder, views_vcthw[None, :1], config)[0, 0, encoder.num_prefix_tokens :]
    return frames_cthw.permute(1, 2, 3, 0), tokens_nd
