"""Scanned digits in motion over a static texture, for the demo set.

No single frame says where a digit is going, and nothing about the motion says which digit it is:
the two label kinds separate what an encoder knows of motion from what it knows of appearance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from math import inf

import numpy as np

from salt_plugin.errors import ConfigError

DIRECTIONS = ("E", "SE", "S", "SW", "W", "NW", "N", "NE")
# Numbers of the splits in the seeds of their clips; 2 is that of the order of the scans.
SPLITS = {"train": 0, "test": 1, "val": 3}
SCANS = 2
# Of the scans. Those of validation are taken from training, and only where it is asked for.
TEST_SHARE = 0.25
VAL_SHARE = 0.15


@dataclass(frozen=True)
class DemoSpec:
    """What the demo set looks like; equal specs give equal files.

    Attributes:
        size: Frame height and width in pixels, a multiple of 32 (decord cannot read some narrow
            frames of other widths, 48 pixels for one).
        frames: Frames of a clip.
        digit: Height and width of a digit in pixels, from 8 (a scan's own size) to size.
        train: Number of training clips.
        val: Number of validation clips. With any, the scans are divided in three, so that the
            training clips are others than without; the test clips stay the same.
        test: Number of test clips; their digit scans never appear in training or validation.
        min_speed: Slowest motion in pixels per frame.
        max_speed: Fastest motion in pixels per frame; speed is uniform in between.
        texture_amplitude: Brightest background pixel, as a share of white in [0, 1].
        texture_contrast: Range of the background's brightness as a share of its amplitude: 1
            reaches down to black, 0 is plain.
        texture_smooth: Standard deviation in pixels of the Gaussian that low-passes the texture.
        noise: Standard deviation of a flicker drawn anew for each pixel and frame, as a share of
            white; 0 is none.
        seed: Seed of everything random in the set, the split of the scans included.
    """

    size: int = 32
    frames: int = 8
    digit: int = 14
    train: int = 4000
    val: int = 0
    test: int = 1000
    min_speed: float = 2.0
    max_speed: float = 3.0
    texture_amplitude: float = 0.2
    texture_contrast: float = 1.0
    texture_smooth: float = 1.5
    noise: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: If a value cannot make a set.
        """
        if self.size % 32:
            raise ConfigError(f"demo size={self.size} cannot work: expected a multiple of 32.")
        highest = {"digit": self.size, "min_speed": self.max_speed}
        highest |= dict.fromkeys(("texture_amplitude", "texture_contrast", "noise"), 1)
        lowest = {"size": 32, "frames": 1, "digit": 8, "train": 1, "test": 1}
        for name, value in asdict(self).items():
            low, high = lowest.get(name, 0), highest.get(name, inf)
            if not low <= value <= high:
                raise ConfigError(f"demo {name}={value} cannot work: expected {low} to {high}.")


def render(spec: DemoSpec, index: int, split: str) -> tuple[np.ndarray, int, int]:
    """Draws one clip; a pure function of its arguments.

    Args:
        spec: The set.
        index: Number of the clip in its split.
        split: "train", "val" or "test".

    Returns:
        The frames (uint8 [T, H, W, 3], grey), the digit (0 to 9) and the direction (0 to 7, in
        steps of 45 degrees clockwise from rightwards, see DIRECTIONS).
    """
    rng = np.random.default_rng([spec.seed, SPLITS[split], index])
    images, digits = _scans()
    scan = rng.choice(scans_of(spec.seed, validation=spec.val > 0)[split])
    direction = int(rng.integers(len(DIRECTIONS)))
    speed = rng.uniform(spec.min_speed, spec.max_speed)
    start = rng.uniform(0, spec.size, 2)
    angle = direction * np.pi / 4
    velocity = speed * np.array([np.sin(angle), np.cos(angle)])
    corner = start + np.arange(spec.frames)[:, None] * velocity
    rows, columns = (_placement(spec, corner[:, axis]) for axis in (0, 1))
    moving = rows @ images[scan] @ columns.transpose(0, 2, 1)
    frames = np.maximum(_texture(spec, rng), moving)
    if spec.noise:
        frames = frames + rng.normal(0, spec.noise, frames.shape)
    grey = np.rint(frames.clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), int(digits[scan]), direction


@lru_cache(maxsize=1)
def _scans() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16.0, digits.target


@lru_cache(maxsize=8)
def scans_of(seed: int, validation: bool = False) -> dict[str, np.ndarray]:
    """Returns the numbers of the scans that each split shows, int64; no scan is in two.

    Args:
        seed: Of the set.
        validation: Whether a part of those of training is kept for validation.
    """
    order = np.random.default_rng([seed, SCANS]).permutation(len(_scans()[0]))
    test = int(len(order) * TEST_SHARE)
    val = test + (int(len(order) * VAL_SHARE) if validation else 0)
    return {"train": order[val:], "val": order[test:val], "test": order[:test]}


def _placement(spec: DemoSpec, corner: np.ndarray) -> np.ndarray:
    """Weights [T, size, 8] that draw the scan's 8 lines, bilinearly, at a corner on the torus."""
    pitch = spec.digit / 8
    centres = corner[:, None] + (np.arange(8) + 0.5) * pitch
    offset = np.arange(spec.size)[None, :, None] + 0.5 - centres[:, None, :]
    distance = np.abs((offset + spec.size / 2) % spec.size - spec.size / 2)
    return np.maximum(0, 1 - distance / pitch)


def _texture(spec: DemoSpec, rng: np.random.Generator) -> np.ndarray:
    frequency = np.fft.fftfreq(spec.size)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    low_pass = np.exp(-2 * (np.pi * spec.texture_smooth) ** 2 * squared)
    noise = rng.normal(size=(spec.size, spec.size))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * low_pass).real
    unit = (smooth - smooth.min()) / max(np.ptp(smooth), np.finfo(float).tiny)
    return spec.texture_amplitude * (1 - spec.texture_contrast * (1 - unit))
