"""An image as a video of one frame, which clips repeat; a folder of images as its frames."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from salt_plugin.files import is_address
from salt_plugin.video.reader import MemoryReader, StreamReader, VideoReadError, require_memory
from salt_plugin.video.storage import (
    NUMBER,
    Folder,
    is_numbered,
    name_of,
    read_bytes,
)
from salt_plugin.video.time_limit import beat

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Other formats are refused: Pillow starts external programs for some.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# Frames per second of a folder that states none.
DEFAULT_FPS = 25.0
_DIGITS = str.maketrans("123456789", "0" * 9)
# States `fps`, or `times` in seconds, of the frames beside it.
ABOUT = "clip.json"


class ImageReader(MemoryReader):
    """An image file, as a video of one frame.

    Args:
        path: The file.

    Raises:
        VideoReadError: If it cannot be decoded.
    """

    def __init__(self, path: str) -> None:
        self.times = np.zeros(1)
        pixels = _pixels(path, read_bytes(path))
        self.size = pixels.shape[0], pixels.shape[1]
        self._frames = torch.from_numpy(pixels.copy())[None].permute(0, 3, 1, 2)
        self._path = path

    def content(self) -> Iterator[bytes]:
        """Yields the bytes of the file."""
        yield read_bytes(self._path)


class FramesReader(StreamReader):
    """Images as the frames of a video; each clip reads its own alone.

    Args:
        path: A folder, whose images are ordered by the numbers in their names; or a name such as
            `folder/%06d.jpg` or `tar://clip.%06d.jpg::shard.tar`, whose numbers have to follow one
            another.

    Attributes:
        times: Time stamps of the frames in seconds, float64 [n], increasing: those of `clip.json`
            beside them (`{"fps": 12}` or `{"times": [0, ...]}`; its name begins as theirs do before
            the number), otherwise 25 frames a second.
        size: Height and width of the first frame, in pixels; others are scaled to it.

    Raises:
        VideoReadError: There are no images, numbers are missing, or the first is none.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = Folder(path, pattern=is_image(path) and not os.path.isdir(path))
        self._names = self._images()
        self.times = self._times(len(self._names))
        with _opened(path, next(self._read(range(1)))) as image:
            self.size = image.height, image.width

    @property
    def seconds(self) -> float:
        """How long the frames are shown; the last one as long as that before it."""
        if len(self) == 1:
            return 1 / DEFAULT_FPS
        return float(2 * self.times[-1] - self.times[-2] - self.times[0])

    def content(self) -> Iterator[bytes]:
        """Yields the bytes of each image."""
        return self._read(range(len(self)))

    def stream(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes frames one after the other.

        Args:
            indices: Frame numbers, int [n].

        Yields:
            The frames, uint8 [H, W, 3], RGB.

        Raises:
            VideoReadError: A frame cannot be decoded.
        """
        contents = self._read(indices.tolist())
        for index in indices.tolist():
            try:
                pixels = _pixels(self._path, next(contents), self.size)
            except VideoReadError as error:
                raise VideoReadError(self._path, f"{error.reason} (frame {index})") from error
            beat()
            yield pixels

    def _read(self, numbers: Sequence[int]) -> Iterator[bytes]:
        return self._folder.read([self._names[number] for number in numbers])

    def _images(self) -> list[str]:
        pattern, names = self._folder.pattern, self._folder.names
        if pattern is None:
            names = [one for one in names if one.lower().endswith(IMAGE_SUFFIXES)]
            names = _in_order(names)
        else:
            names = _numbered(self._path, pattern, names)
        if not names:
            named = f"there are no images of this name: {pattern}"
            raise VideoReadError(
                self._path, "the folder holds no images" if pattern is None else named
            )
        return names

    def _about(self) -> dict[str, Any]:
        name = (NUMBER.split(self._folder.pattern or "")[0]) + ABOUT
        if not self._folder.has(name):
            return {}
        try:
            return dict(json.loads(next(self._folder.read([name]))))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._misstated(error) from None

    def _times(self, count: int) -> np.ndarray:
        about = self._about()
        try:
            times_n = np.array(about.get("times") or [], np.float64)
            fps = float(about.get("fps") or DEFAULT_FPS)
        except (ValueError, TypeError) as error:
            raise self._misstated(error) from None
        if len(times_n) not in (0, count) or not (np.diff(times_n) > 0).all():
            raise VideoReadError(
                self._path, f"{ABOUT}: expected {count} increasing times, one for each image"
            )
        if len(times_n) and np.isfinite(times_n).all():
            return times_n
        if not (math.isfinite(fps) and fps > 0):
            raise VideoReadError(self._path, f"{ABOUT}: fps={fps}: expected a positive number")
        return np.arange(count) / fps

    def _misstated(self, error: Exception) -> VideoReadError:
        return VideoReadError(self._path, f"{ABOUT} cannot be read: {error}")


def is_image(path: str) -> bool:
    """Tells by its name whether a file is an image, or stands for numbered ones."""
    return name_of(path).lower().endswith(IMAGE_SUFFIXES)


def is_frames(path: str) -> bool:
    """Tells whether a name stands for a folder of images, or for numbered ones."""
    if is_image(path) and is_numbered(path):
        return True
    return name_of(path).endswith("/") if is_address(path) else os.path.isdir(path)


def image_size(path: str) -> tuple[int, int]:
    """Returns height and width of an image, from its header.

    Raises:
        VideoReadError: It is no image.
    """
    with _opened(path, read_bytes(path)) as image:
        return image.height, image.width


def _numbered(path: str, pattern: str, names: list[str]) -> list[str]:
    """Returns the names that a pattern stands for, in the order of their numbers."""
    match = NUMBER.search(pattern)
    assert match is not None
    before, after = pattern[: match.start()], pattern[match.end() :]
    digits = f"\\d{{{match[1]},}}" if match[1] else "\\d+"
    wanted = re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")
    found = sorted((int(one[1]), one[0]) for one in map(wanted.fullmatch, names) if one)
    for (number, _), (following, _) in pairwise(found):
        if following != number + 1:
            raise VideoReadError(
                path, f"an image is missing, or there twice: {number} precedes {following}"
            )
    return [name for _, name in found]


def _in_order(names: list[str]) -> list[str]:
    """Returns names by the numbers in them: `2.jpg` before `10.jpg`."""
    alike = len({name.translate(_DIGITS) for name in names}) == 1  # then the order of text is that
    return sorted(names, key=None if alike else _by_numbers)


def _by_numbers(name: str) -> list[tuple[bool, int, str]]:
    parts = ("".join(part) for _, part in groupby(name, str.isdecimal))
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _pixels(path: str, content: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes an image to uint8 [H, W, 3], scaled to a size if one is given."""
    with _opened(path, content) as image:
        upright: Image.Image = image
        if image.mode != "RGB":
            upright = image.convert("RGB")
        if size not in (None, (image.height, image.width)):
            assert size is not None
            upright = upright.resize(size[::-1], Image.Resampling.BICUBIC)
        return np.asarray(upright)


@contextmanager
def _opened(path: str, content: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            require_memory(path, 1, (image.height, image.width))
            yield image
    except UnidentifiedImageError:
        raise VideoReadError(path, f"no image of the formats {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoReadError(path, str(error)) from error
