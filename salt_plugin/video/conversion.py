"""A video written again for training: closed-GOP H.264, or JPEG frames."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from PIL import Image

from salt_plugin.video.images import ABOUT, DEFAULT_FPS
from salt_plugin.video.opening import open_video
from salt_plugin.video.reader import Reader, StreamReader, VideoReadError
from salt_plugin.video.scan import scan
from salt_plugin.video.time_limit import beat

QUALITY = 90
# The same as those of mending lines.
_X264 = {"crf": "18", "g": "30", "bf": "2", "flags": "+cgop", "threads": "1"}
_TICKS = 90_000
# Seconds by which times may differ from those of a constant rate.
_UNIFORM = 1e-3


@dataclass(frozen=True)
class Conversion:
    """How videos are written.

    Attributes:
        store: `videos` or `frames`.
        short_side: Of the frames, in pixels; smaller ones keep theirs.
        fps: Frames per second, taken nearest in time; None keeps all frames and their times.
    """

    store: str
    short_side: int
    fps: float | None


@dataclass(frozen=True)
class Converted:
    """What became of a video; `reason` says why nothing did, and then the rest is empty.

    Attributes:
        reason: Why it is left out.
        frames: Number of frames.
        fps: Their rate, a mean where it varies.
        keyframes: Their numbers.
        bytes: Of the video, or of all frames.
        height: Of a frame, in pixels.
        width: Of a frame, in pixels.
    """

    reason: str | None = None
    frames: int = 0
    fps: float = 0.0
    keyframes: tuple[int, ...] = ()
    bytes: int = 0
    height: int = 0
    width: int = 0


def convert(
    path: str, key: str, piece: Path, how: Conversion, label: int, about: dict[str, Any]
) -> Converted:
    """Writes a video as members of a tar file: `KEY.mp4`, or `KEY.000000.jpg` and so on.

    `KEY.clip.json` and, where there is a label, `KEY.cls` stand beside them, as webdataset has it.

    Args:
        path: The video; a folder of frames, or an image.
        key: Its name in the tar file.
        piece: The file to write, without the blocks that end a tar file.
        how: How it is written.
        label: Of the video, -1 for none.
        about: What `KEY.clip.json` holds besides.
    """
    unfinished = piece.with_suffix(".tmp")
    try:
        reader = open_video(path)
        indices, times_n = _chosen(reader.times, how.fps)
        frames = _scaled(_decoded(reader, indices), how)
        with unfinished.open("wb") as tar, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be sought: it is read once, in order
            if how.store == "frames":
                done = _write_frames(frames, key, tar, times_n)
            else:
                done = _write_video(frames, key, tar, times_n, piece.with_suffix(".mp4"))
            rate: dict[str, Any] = {"fps": done.fps}
            if _rate(times_n) is None:
                rate["times"] = times_n.tolist()
            size = {"frames": done.frames, "height": done.height, "width": done.width}
            _add(tar, f"{key}.{ABOUT}", json.dumps({**rate, **size, **about}).encode())
            if label >= 0:
                _add(tar, f"{key}.cls", str(label).encode())
        unfinished.rename(piece)
        return done
    except VideoReadError as error:
        return Converted(reason=error.reason)
    finally:
        unfinished.unlink(missing_ok=True)


def _chosen(times_n: np.ndarray, fps: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns which frames are kept, and their times from 0 on."""
    times_n = times_n - times_n[0]
    if fps is None:
        return np.arange(len(times_n)), times_n
    last = times_n[-1] - times_n[-2] if len(times_n) > 1 else 1 / fps
    wanted = np.arange(max(1, round((times_n[-1] + last) * fps))) / fps
    return np.searchsorted((times_n[1:] + times_n[:-1]) / 2, wanted, side="right"), wanted


def _decoded(reader: Reader, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yields frames, uint8 [H, W, 3]; repeated ones are decoded once."""
    unique, counts = np.unique(indices, return_counts=True)
    if isinstance(reader, StreamReader):
        frames = reader.stream(unique)
    else:
        frames = (reader.frames(np.array([one]))[0].permute(1, 2, 0).numpy() for one in unique)
    for pixels, count in zip(frames, counts.tolist(), strict=True):
        for _ in range(count):
            yield pixels


def _scaled(frames: Iterable[np.ndarray], how: Conversion) -> Iterator[Image.Image]:
    for pixels in frames:
        height, width = pixels.shape[:2]
        scale = min(1.0, how.short_side / min(height, width))
        step = 2 if how.store == "videos" else 1  # H.264 halves the size of its colours
        size = [max(step, round(side * scale / step) * step) for side in (width, height)]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        yield image if size == [width, height] else image.resize(size, Image.Resampling.BICUBIC)


def _rate(times_n: np.ndarray) -> Fraction | None:
    """Returns the rate of frames, None where it varies."""
    if len(times_n) < 2:
        return Fraction(DEFAULT_FPS)
    rate = Fraction((len(times_n) - 1) / float(times_n[-1])).limit_denominator(1001)
    if rate <= 0 or np.abs(np.arange(len(times_n)) / float(rate) - times_n).max() > _UNIFORM:
        return None
    return rate


def _mean_rate(times_n: np.ndarray) -> float:
    rate = _rate(times_n)
    return float(rate) if rate is not None else (len(times_n) - 1) / float(times_n[-1])


def _write_frames(
    frames: Iterable[Image.Image], key: str, tar: IO[bytes], times_n: np.ndarray
) -> Converted:
    total, size = 0, (0, 0)
    for number, image in enumerate(frames):
        content = io.BytesIO()
        image.save(content, "JPEG", quality=QUALITY)
        _add(tar, f"{key}.{number:06d}.jpg", content.getvalue())
        total += content.tell()
        size = image.size
    count = len(times_n)
    rate = _mean_rate(times_n)
    return Converted(None, count, rate, tuple(range(count)), total, size[1], size[0])


def _write_video(
    frames: Iterator[Image.Image], key: str, tar: IO[bytes], times_n: np.ndarray, file: Path
) -> Converted:
    rate = _rate(times_n)
    tick = 1 / rate if rate is not None else Fraction(1, _TICKS)
    first = next(frames)
    try:
        with av.open(str(file), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate or 25, options=_X264)
            stream.width, stream.height = first.size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = tick
            for image, time in zip(chain([first], frames), times_n.tolist(), strict=True):
                frame = av.VideoFrame.from_image(image)
                frame.pts, frame.time_base = round(time / tick), tick
                container.mux(stream.encode(frame))
                beat()
            container.mux(stream.encode())
        facts = scan(str(file))
        if len(facts.pts_n) != len(times_n) or facts.gop not in ("closed", "single", "intra"):
            raise VideoReadError(str(file), f"{len(facts.pts_n)} of {len(times_n)} frames written")
        content = file.read_bytes()
    finally:
        file.unlink(missing_ok=True)
    _add(tar, f"{key}.mp4", content)
    keys = np.searchsorted(facts.pts_n, facts.keys_k3[:, 0]).tolist()
    return Converted(
        None, len(times_n), _mean_rate(times_n), tuple(keys), len(content), *first.size[::-1]
    )


def _add(tar: IO[bytes], name: str, content: bytes) -> None:
    """Writes a member of a tar file; equal content gives equal bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
