"""Segments of a video as V-JEPA 2's evaluation draws, augments and crops them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.utilities.seed import isolate_rng
from timm.data import create_transform
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from salt_plugin.batch import Normalization
from salt_plugin.config import ProbeConfig
from salt_plugin.data import VideoReadError, open_video
from salt_plugin.data.loader import note_file
from salt_plugin.transforms import SALTEvalTransform
from salt_plugin.transforms.salt_transform import channels_first
from salt_plugin.video.opening import DEFAULT_READER

AUGMENT, AUGMENT_IMAGE = "rand-m7-n4-mstd0.5-inc1", "original"
SCALE, RATIO, ERASE = (0.08, 1.0), (3 / 4, 4 / 3), 0.25
ERASED_SCALE, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
SHORT_SIDE = 256 / 224  # of a single test crop, over its side


class SegmentDataset(Dataset[Tensor | VideoReadError]):
    """Segments of videos, addressed by (epoch, place in the list); all draws are functions of both.

    An unreadable video is returned as its error, as by `ViewDataset`.

    Args:
        paths: Videos, or images, which are videos of one frame.
        config: Frames, step, size, segments and crops of a clip, and the seed.
        training: Augment, one view each; else `crops` views.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.
    """

    def __init__(
        self,
        paths: list[str],
        config: ProbeConfig,
        training: bool,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.paths, self.config, self.training = paths, config, training
        self.test_transform = SALTEvalTransform(config.size, mean, std)
        self.augment = _Augment(config.size, self.test_transform.normalization)
        self.augment_image = create_transform(
            config.size,
            is_training=True,
            auto_augment=AUGMENT_IMAGE,
            interpolation="bicubic",
            re_prob=ERASE,
            mean=tuple(mean),
            std=tuple(std),
        )

    def __getitem__(self, key: tuple[int, int]) -> Tensor | VideoReadError:
        """Returns float32 [V, S, C, T, H, W] of a video."""
        epoch, place = key
        path, config = self.paths[place], self.config
        note_file(path)
        try:
            reader = open_video(path, DEFAULT_READER)
            with isolate_rng(include_cuda=False):
                rng = _seed_all(config.seed, epoch, place)
                rows_st = segment_frames(
                    len(reader.times), config.frames, config.step, config.segments, rng
                )
                clips = reader.frames(rows_st.reshape(-1)).chunk(config.segments)
                return torch.stack([self._views(clip) for clip in clips], 1)
        except VideoReadError as error:
            return error
        finally:
            note_file(None)

    def _views(self, frames_tchw: Tensor) -> Tensor:
        """Returns float32 [V, C, T, H, W] of the frames of a segment."""
        size = self.config.size
        if self.training and self.config.images:
            picture_chw = self.augment_image(Image.fromarray(_pixels(frames_tchw[0])))
            return picture_chw[None, :, None].expand(-1, -1, len(frames_tchw), -1, -1)
        if self.training:
            return self.augment(frames_tchw)[None]
        if self.config.crops > 1:
            return self.test_transform.crops(frames_tchw, self.config.crops)
        resized = v2.functional.resize(frames_tchw, [int(size * SHORT_SIDE)], antialias=True)
        centre = channels_first(v2.functional.center_crop(resized, [size, size]))
        return self.test_transform.normalization(centre)[None]


def segment_frames(
    total: int, frames: int, step: int, segments: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns the frames of the segments of a video by V-JEPA 2's rule, which it also tests by.

    The video is cut into equal parts. Where a part is longer than a clip, a clip starts at a random
    place of each; else clips are spread over the video, and a clip that is longer than the video
    repeats its end.

    Args:
        total: Frames of the video.
        frames: Of a clip.
        step: From frame to frame.
        segments: Number of clips.
        rng: Draws the places.

    Returns:
        int64 [segments, frames].
    """
    length, part = frames * step, total // segments
    if part > length:
        starts_s = rng.integers(0, part - length, segments)
        spread_t = np.linspace(0, length, frames).clip(max=length - 1)
        within_st = (starts_s[:, None] + spread_t).astype(np.int64)
        return within_st + np.arange(segments)[:, None] * part
    last = min(length, total) - 1
    shown = last // step
    first_t = np.concatenate([np.linspace(0, last, shown), np.full(frames - shown, last)])
    first_t = first_t.clip(0, max(last - 1, 0)).astype(np.int64)
    shift = max(total - length, 0) // max(segments - 1, 1)
    return first_t + np.arange(segments)[:, None] * shift


class _Augment:
    """Random operations, a crop and an erased box, each the same for all frames of a clip."""

    def __init__(self, size: int, normalization: Normalization) -> None:
        self.normalization = normalization
        hparams = {"translate_const": int(size * 0.45), "interpolation": Image.Resampling.BICUBIC}
        self.operations = rand_augment_transform(AUGMENT, hparams)
        self.crop = v2.RandomResizedCrop([size, size], SCALE, RATIO, antialias=False)
        self.erase = v2.RandomErasing(ERASE, ERASED_SCALE, ERASED_RATIO, value="random")

    def __call__(self, frames_tchw: Tensor) -> Tensor:
        """Maps uint8 [T, C, H, W] to float32 [C, T, H, W]."""
        states = random.getstate(), np.random.get_state()
        augmented = []
        for frame in frames_tchw:
            random.setstate(states[0])
            np.random.set_state(states[1])
            picture = self.operations(Image.fromarray(_pixels(frame)))
            augmented.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        clip_cthw = self.crop(self.normalization(channels_first(torch.stack(augmented))))
        # As one picture of C * T channels: the box is the same, the noise in it is not.
        return self.erase(clip_cthw.flatten(0, 1)).view_as(clip_cthw)


def _pixels(frame_chw: Tensor) -> np.ndarray:
    return frame_chw.permute(1, 2, 0).contiguous().numpy()


def _seed_all(*numbers: int) -> np.random.Generator:
    """Seeds the generators that the augmentations draw from, and returns one more."""
    seeds = np.random.SeedSequence(numbers).generate_state(4)
    random.seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    torch.manual_seed(int(seeds[2]))
    return np.random.default_rng(seeds[3])
