from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salt_plugin import load_encoder
from salt_plugin.checkpoints import save_encoder
from salt_plugin.errors import ShapeError
from salt_plugin.models import EncoderShape, VideoEncoder
from salt_plugin.transforms import SALTEvalTransform
from salt_plugin.transforms.preprocessing import Preprocessing

CARD = {"frames": 4, "size": 16, "step": 3, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 24, 40, 3), dtype=np.uint8)


def test_arrays_of_either_library_and_layout_make_the_clip_of_the_evaluation(
    frames: np.ndarray,
) -> None:
    take = Preprocessing(**CARD)
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    view = SALTEvalTransform(16, CARD["mean"], CARD["std"])
    expected = view(channels_first[[5, 8, 11, 14]])[None]  # the middle of 20, 3 apart
    frames.flags.writeable = False
    for given in (frames, torch.tensor(frames), channels_first, channels_first.numpy()):
        assert torch.equal(take(given), expected)


def test_as_many_frames_as_a_clip_has_are_taken_as_they_are(frames: np.ndarray) -> None:
    take = Preprocessing(**CARD)
    one_by_one = Preprocessing(**{**CARD, "frames": 1})
    for count, picked in ((4, [0, 1, 2, 3]), (6, [0, 3, 5, 5]), (1, [0, 0, 0, 0])):
        expected = torch.cat([one_by_one(frames[i]) for i in picked], dim=2)
        assert torch.equal(take(frames[:count]), expected)
    by_rate = Preprocessing(**{**CARD, "fps": 8.0})
    assert torch.equal(by_rate(frames[:6]), take(frames[1:5]))


def test_an_image_is_repeated(frames: np.ndarray) -> None:
    clip = Preprocessing(**CARD)(frames[0])
    assert clip.shape == (1, 3, 4, 16, 16)
    assert torch.equal(clip, clip[:, :, :1].expand_as(clip))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), r"float32 \[4, 8, 8, 3\]"),
        (torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8), r"torch.uint8 \[2, 4, 8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"uint8 \[0, 8, 8, 3\]"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"uint8 \[4, 8, 8, 4\]"),
        ("a.mp4", "str; salt_plugin.embed takes files"),
    ],
)
def test_anything_else_is_refused(given: Any, found: str) -> None:
    with pytest.raises(ShapeError, match=f"expected frames uint8 .*; found {found}"):
        Preprocessing()(given)


@pytest.mark.parametrize("cls_token", [False, True])
def test_a_loaded_encoder_prepares_and_embeds_frames_as_its_card_says(
    frames: np.ndarray, tmp_path: Path, cls_token: bool
) -> None:
    shape = EncoderShape.named("vit_nano", patch_size=8, cls_token=cls_token)
    made = VideoEncoder(shape)
    assert made.preprocessing == Preprocessing()
    save_encoder(made, tmp_path / "encoder.safetensors", {"input": CARD})
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    clip = encoder.preprocess(frames)
    assert torch.equal(clip, Preprocessing(**CARD)(frames))
    tokens = encoder(clip)[0]
    feature = encoder.embed(frames)
    torch.testing.assert_close(feature, tokens[0] if cls_token else tokens.mean(0))
    assert not feature.requires_grad
