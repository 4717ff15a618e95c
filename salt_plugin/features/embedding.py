"""Features of sliding windows over videos by a frozen encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from salt_plugin.data import VideoReadError, read_inputs
from salt_plugin.data.loader import ClipLoader
from salt_plugin.data.shared_memory import clip_bytes, require_shared_memory
from salt_plugin.data.workers import loader_workers
from salt_plugin.evaluation.cache import files_digest
from salt_plugin.evaluation.encoders import FrozenEncoder, chosen_device, open_encoder
from salt_plugin.evaluation.features import precision_of
from salt_plugin.features.pooling import Pooling
from salt_plugin.features.window_data import ClipBatch, PartState, WindowDataset
from salt_plugin.features.windows import Length, Windows, parse_length
from salt_plugin.models import VideoEncoder
from salt_plugin.transforms.preprocessing import Preprocessing
from salt_plugin.video.containers import VIDEO_SUFFIXES
from salt_plugin.video.images import IMAGE_SUFFIXES

PART_WINDOWS = 64
PART_BYTES = 2**26
# Seconds to wait for a batch of windows.
STALL = 1800.0


class Features(NamedTuple):
    """Features of windows, a row a window.

    Attributes:
        features: [n, D], with layers [n, L, D]; all tokens where nothing is pooled: [n, N, D].
        paths: Of the videos.
        starts: When the windows start, in seconds from the first frame, float64 [n].
        ends: When they end.
    """

    features: np.ndarray
    paths: list[str]
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class FeatureSettings:
    """How features are made.

    Attributes:
        window: Length of a window, such as `64` frames or `2.5s`; None: the span of a clip of the
            encoder.
        stride: From window to window; None: the length of a window.
        pool: `mean` (of an encoder with `[cls]`, this), `none`, or `attentive:FILE`.
        layers: Layers to take, from 0, or from the last one as -1, each after the encoder's
            LayerNorm, as V-JEPA 2 takes them; None: the last one, without an axis of layers.
        frames: Frames of a clip; None: those of the encoder.
        size: Height and width of a clip in pixels; None: those of the encoder.
        precision: `auto`: bf16 on a GPU, 32 on a CPU; `bf16` or `32`.
        batch_size: Clips that the encoder sees at once; None: 16 on a GPU, 1 on a CPU.
        workers: Processes that read videos; None: each core beside a GPU, none on a CPU.
    """

    window: str | float | None = None
    stride: str | float | None = None
    pool: str = "mean"
    layers: tuple[int, ...] | None = None
    frames: int | None = None
    size: int | None = None
    precision: str = "auto"
    batch_size: int | None = None
    workers: int | None = None


class Extraction:
    """Features of one list of videos by one encoder.

    Args:
        encoder: On the device where it computes.
        paths: Videos and images.
        settings: How features are made.

    Raises:
        SaltError: They cannot be made so.
    """

    def __init__(self, encoder: FrozenEncoder, paths: list[str], settings: FeatureSettings) -> None:
        self.encoder, self.paths = encoder, paths
        on_gpu = encoder.device.type == "cuda"
        card = encoder.preprocessing
        self.clip: Preprocessing = replace(
            card, frames=settings.frames or card.frames, size=settings.size or card.size
        )
        encoder.check_clip(self.clip.frames, self.clip.size, "--")
        span = Length(self.clip.frames * self.clip.step, in_seconds=False)
        if self.clip.fps:
            span = Length(self.clip.frames / self.clip.fps, in_seconds=True)
        window = parse_length(settings.window, "--window") if settings.window else span
        stride = parse_length(settings.stride, "--stride") if settings.stride else window
        self.windows = Windows(self.clip.frames, window, stride)
        self.precision = precision_of(settings.precision, encoder.device)
        self.batch_size = settings.batch_size or (16 if on_gpu else 1)
        own = -1 if on_gpu else 0
        self.workers: int = own if settings.workers is None else settings.workers
        self._pooling = Pooling(encoder, settings.pool, settings.layers, self.clip)
        row = np.dtype(self._pooling.dtype).itemsize * int(np.prod(self._pooling.shape))
        self.part_windows = max(1, min(PART_WINDOWS, PART_BYTES // row))
        self.plan: dict[str, Any] = {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "videos": files_digest(paths),
            "window": str(window),
            "stride": str(stride),
            "frames": self.clip.frames,
            "size": self.clip.size,
            "mean": list(self.clip.mean),
            "std": list(self.clip.std),
            "pool": self._pooling.name,
            "layers": None if settings.layers is None else list(settings.layers),
            "precision": self.precision,
            "batch_size": self.batch_size,
            "shape": self._pooling.shape,
            "dtype": self._pooling.dtype,
        }

    def batches(
        self, states: dict[str, PartState] | None = None, rank: int = 0, size: int = 1
    ) -> Iterator[tuple[ClipBatch, np.ndarray]]:
        """Yields windows and their features, in the order of the windows but for workers."""
        data = WindowDataset(
            self.paths,
            self.windows,
            self.clip,
            self.batch_size,
            self.part_windows,
            states,
            rank,
            size,
        )
        workers = loader_workers(self.workers, size)
        batch = self.batch_size * clip_bytes(self.clip.frames, self.clip.size, self.clip.size)
        require_shared_memory(batch, workers, "--workers 0")
        loader = ClipLoader(data, workers=workers, stall=STALL, key="its limit", batch_size=None)
        normalization, device = self.clip.transform.normalization, self.encoder.device
        for clips in loader:
            if not clips.rows:
                yield clips, np.zeros((0, *self._pooling.shape), self._pooling.dtype)
                continue
            bf16 = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
            with torch.inference_mode(), bf16:
                features = self._pooling(normalization(clips.clips_bcthw.to(device)))
            yield clips, features.float().cpu().numpy().astype(self._pooling.dtype)


def embed(
    videos: str | os.PathLike[str] | Sequence[str],
    encoder: str | os.PathLike[str] | VideoEncoder | FrozenEncoder,
    *,
    device: str | None = None,
    **settings: Any,
) -> Features:
    """Returns the features of sliding windows over videos; `salt features` writes them to disk.

    Args:
        videos: A video, an image, a folder, a list of videos, or several of these.
        encoder: What `salt probe` takes, such as a run directory; or an encoder. There is no
            default, because no weights come with the package.
        device: Where to compute; None: where a given encoder is, else a GPU where there is one.
        **settings: As of `FeatureSettings`: `window="2s"`, `stride`, `pool`, `layers` and others.

    Raises:
        SaltError: An encoder, a video or a value that cannot work.
    """
    paths = list_videos(videos)
    if isinstance(encoder, VideoEncoder):  # a copy, since it may be in training
        encoder = FrozenEncoder(type(encoder).__name__, deepcopy(encoder))
    made = open_extraction(encoder, paths, FeatureSettings(**settings), device)
    rows: list[tuple[str, Any, np.ndarray]] = []
    for batch, features in made.batches():
        for path, reason in batch.errors:
            raise VideoReadError(path, reason)
        rows += [(batch.part, row, one) for row, one in zip(batch.rows, features, strict=True)]
    rows.sort(key=lambda row: row[0])
    return Features(
        np.stack([features for _, _, features in rows]),
        [paths[row.video] for _, row, _ in rows],
        np.array([row.start for _, row, _ in rows]),
        np.array([row.end for _, row, _ in rows]),
    )


def list_videos(videos: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Returns the absolute paths of videos and images; see `read_inputs`."""
    return read_inputs(videos, "INPUT", VIDEO_SUFFIXES + IMAGE_SUFFIXES).paths


def open_extraction(
    encoder: str | os.PathLike[str] | FrozenEncoder,
    paths: list[str],
    settings: FeatureSettings,
    device: str | None = None,
) -> Extraction:
    """Opens an encoder and moves it to its device; see `Extraction`."""
    if isinstance(encoder, FrozenEncoder):
        return Extraction(encoder.to(device or encoder.device), paths, settings)
    place = chosen_device(device)
    opened = open_encoder(os.fspath(encoder), size=settings.size or Preprocessing.size)
    return Extraction(opened.to(place), paths, settings)
