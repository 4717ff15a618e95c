"""An image as a video of one frame, which clips repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

from salt_plugin.video.opening import DEFAULT_READER, open_video
from salt_plugin.video.reader import (
    MemoryReader,
    Reader,
    VideoReadError,
    require_memory,
    require_regular_file,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Other formats are refused: Pillow starts external programs for some.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class ImageReader(MemoryReader):
    """An image file, as a video of one frame.

    Args:
        path: The file.

    Raises:
        VideoReadError: If it cannot be decoded.
    """

    def __init__(self, path: str) -> None:
        self.times = np.zeros(1)
        with _opened(path) as image:
            pixels = np.array(image.convert("RGB"))
        self.size = pixels.shape[0], pixels.shape[1]
        self._frames = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)


def image_size(path: str) -> tuple[int, int]:
    """Returns height and width of an image, from its header.

    Raises:
        VideoReadError: It is no image.
    """
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    require_regular_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            require_memory(path, 1, (image.height, image.width))
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoReadError(path, str(error)) from error


def open_reader(path: str, reader: str = DEFAULT_READER) -> Reader:
    """Opens a video (see `open_video`), or an image by its suffix.

    Raises:
        VideoReadError: It cannot be read.
    """
    if path.lower().endswith(IMAGE_SUFFIXES):
        return ImageReader(path)
    return open_video(path, reader)
