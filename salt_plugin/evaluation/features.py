"""Features of a list of videos by a frozen encoder, from disk where they are already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from salt_plugin.config import ProbeConfig
from salt_plugin.config.evaluation import Keep
from salt_plugin.data import VideoReadError
from salt_plugin.errors import DataError, SaltError
from salt_plugin.evaluation.cache import FeatureStore, StoredFeatures, cache_root, files_digest
from salt_plugin.evaluation.controls import frame_orders, frozen_frame, shuffled
from salt_plugin.evaluation.encoders import FrozenEncoder
from salt_plugin.evaluation.keep import kept
from salt_plugin.evaluation.lists import Lists, read_lists
from salt_plugin.evaluation.processes import ALONE, Processes
from salt_plugin.evaluation.views import ViewDataset, clip_batches

SPLITS = ("train", "val", "test")

Progress = Callable[[str, int, int], None]
"""Called with a title, the number of things done, and of all."""


def quiet(title: str, done: int, total: int) -> None:
    """Shows no progress."""


def precision_of(precision: str, device: torch.device) -> str:
    """Returns `bf16` or `32`, which `auto` leaves to the device."""
    auto = "bf16" if device.type == "cuda" else "32"
    return auto if precision == "auto" else precision


def encode(
    encoder: FrozenEncoder, clips_bvcthw: Tensor, config: ProbeConfig, layers: int = 1
) -> Tensor:
    """Returns the tokens of all views, float32 [b, V, N, D] on the device of the encoder.

    Of several layers, as `FrozenEncoder.last_layers` gives them, there are as many times N.
    """
    device = encoder.device
    clips = clips_bvcthw.flatten(0, 1).split(config.feature_batch_size)
    bf16 = precision_of(config.precision, device) == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        moved = (clip.to(device, non_blocking=True) for clip in clips)
        tokens = torch.cat([encoder.last_layers(clip, layers).float() for clip in moved])
    return tokens.unflatten(0, clips_bvcthw.shape[:2])


def stored_features(
    encoder: FrozenEncoder,
    lists: Lists,
    split: str,
    config: ProbeConfig,
    control: str | None = None,
    progress: Progress = quiet,
    processes: Processes = ALONE,
) -> StoredFeatures:
    """Returns the features of a split, after computing those that are not stored.

    Args:
        encoder: On the device where it computes.
        lists: As `read_lists` gives them.
        split: `train`, which has one view of a video, `val` or `test`.
        config: Clips, views, and what of the tokens is kept beside the tokens themselves, which
            are for the protocol `attentive`.
        control: None, `shuffled` or `frozen`.
        progress: Called after every batch.
        processes: Each encodes every n-th batch, and the first writes them all.

    Raises:
        DataError: A video cannot be read, or the store is damaged, in use or has no space; or
            other processes do not see the store of the first.
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
        "precision": precision_of(config.precision, encoder.device),
    }
    root, keep, with_tokens = cache_root(config.cache), config.keep, "attentive" in config.protocols

    def rows_done(store: FeatureStore) -> int:
        return processes.gather(store.rows_done)[0]

    def of_kept(keep: Keep) -> FeatureStore:
        width = kept(encoder, torch.zeros(tokens, encoder.embed_dim), config.frames, keep).numel()
        # Stores of earlier versions lack `[cls]`.
        what = [keep, encoder.num_prefix_tokens] if encoder.num_prefix_tokens else keep
        return FeatureStore(root, {**key, "keep": what}, shape, False, width)

    store = whole = FeatureStore(root, key, shape, tokens=True)
    if not with_tokens and keep != "none":
        store = of_kept(keep)
    elif not with_tokens and rows_done(whole) < len(paths):
        store, timed = FeatureStore(root, key, shape, tokens=False), of_kept("time")
        if not encoder.num_prefix_tokens and rows_done(timed) == len(paths):
            # Each time has as many tokens, so the mean over all is that of the times.
            times_nvtd = timed.read().means.unflatten(-1, (-1, encoder.embed_dim))
            return StoredFeatures(times_nvtd.mean(-2), None)

    order_nt = frame_orders(len(paths), config.frames, seed)

    def encoded(start: int, clips: Tensor) -> StoredFeatures:
        if control == "shuffled":
            clips = shuffled(clips, order_nt[start : start + len(clips)])
        elif control == "frozen":
            clips = frozen_frame(clips)
        found = encode(encoder, clips, config)
        means = kept(encoder, found, config.frames, "none" if with_tokens else keep)
        return StoredFeatures(means.cpu(), found.half().cpu() if with_tokens else None)

    def batches_from(start: int) -> Iterator[StoredFeatures]:
        return _shared(dataset, start, encoded, processes)

    if (start := rows_done(store)) < len(paths):
        title = f"features, {split}" + (f", {control}" if control else "")
        if processes.rank == 0:
            store.extend(batches_from, lambda done: progress(title, done, len(paths)))
        else:
            list(batches_from(start))
        processes.gather(None)
    if store.rows_done < len(paths):
        raise DataError(
            f"process {processes.rank} of {processes.size} finds no features in {store.folder}, "
            "where the first wrote them: give --cache DIR on a disk that all processes see"
        )
    found = store.read()
    if found.tokens is not None and keep != "none":
        parts = [kept(encoder, one.float(), config.frames, keep) for one in found.tokens]
        found = found._replace(means=torch.stack(parts))
    return found if with_tokens else found._replace(tokens=None)


def _shared(
    dataset: ViewDataset,
    start: int,
    encoded: Callable[[int, Tensor], StoredFeatures],
    processes: Processes,
) -> Iterator[StoredFeatures]:
    """Yields the features of all batches in the first process, nothing in the others.

    Every process encodes the batches that it would encode alone, so that features do not depend on
    their number.

    Raises:
        SaltError: A video cannot be read, in any process.
    """
    own = clip_batches(dataset, start, processes.rank, processes.size)
    for _ in range(-(-(len(dataset) - start) // (dataset.videos_at_once * processes.size))):
        batch, failure = None, None
        try:
            if (clips := next(own, None)) is not None:
                batch = encoded(*clips)
        except SaltError as error:
            failure = error
        for reported in filter(None, processes.gather(failure)):
            raise reported
        yield from filter(None, processes.to_first(batch))


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
