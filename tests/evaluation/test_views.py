from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from salt_plugin.config import probe_config
from salt_plugin.data import ClipSampler, VideoReadError
from salt_plugin.data.demo import write_video
from salt_plugin.evaluation.views import ViewDataset, clip_batches
from salt_plugin.transforms import SALTEvalTransform


@pytest.mark.parametrize(("frames", "length"), [(4, 40), (4, 41), (8, 8), (8, 3)])
def test_one_segment_is_the_centred_clip(frames: int, length: int) -> None:
    sampler = ClipSampler(frames, step=2)
    times = np.arange(length) / 25
    assert sampler.segments(times, 1).tolist() == [sampler.indices(times, None).tolist()]


def test_segments_start_in_the_middle_of_equal_parts_of_all_valid_starts() -> None:
    clips = ClipSampler(2, step=3).segments(np.arange(28) / 25, count=4)
    # Starts 0 to 24 in four parts of 6; middles 3, 9, 15, 21.
    assert clips.tolist() == [[3, 6], [9, 12], [15, 18], [21, 24]]
    backwards = 27 - clips[::-1, ::-1]
    assert clips.tolist() == backwards.tolist()


@pytest.mark.parametrize(("height", "width"), [(24, 60), (60, 24)])
def test_crops_lie_at_both_ends_and_the_centre_of_the_longer_side(height: int, width: int) -> None:
    frames = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    transform = SALTEvalTransform(24)
    crops = transform.crops(frames, 3)
    assert crops.shape == (3, 3, 2, 24, 24)
    along = -1 if width > height else -2
    for crop, start in zip(crops, (0, 18, 36), strict=True):
        expected = frames.narrow(along, start, 24).transpose(0, 1) / 255
        torch.testing.assert_close(transform.denormalize(crop), expected)
    assert torch.equal(transform(frames), crops[1])


def test_views_are_segments_and_within_them_crops(tmp_path: Path) -> None:
    frames = np.zeros((40, 32, 96, 3), dtype=np.uint8)
    frames += np.arange(0, 200, 5, dtype=np.uint8)[:, None, None, None]
    frames[:, :, 64:] += 50  # the right third is brighter, and later frames are
    write_video(tmp_path / "video.mp4", frames, fps=10)
    transform = SALTEvalTransform(32)
    config = probe_config(frames=2, size=32, step=1, segments=2, crops=3)
    dataset = ViewDataset([str(tmp_path / "video.mp4")], config)
    clips = dataset[0]
    assert isinstance(clips, torch.Tensor)
    assert clips.shape == (6, 3, 2, 32, 32)
    grey = transform.denormalize(clips).mean((1, 2, 3, 4)) * 255
    early, late = 5 * 9.5, 5 * 28.5
    expected = torch.tensor([early, early, early + 50, late, late, late + 50])
    torch.testing.assert_close(grey, expected, atol=6, rtol=0)


def test_an_image_is_a_video_of_one_frame_that_repeats(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    for rate in ({"step": 4}, {"fps": 4.0}):
        config = probe_config(frames=4, size=16, segments=2, **rate)
        clips = ViewDataset([str(tmp_path / "grey.png")], config)[0]
        assert isinstance(clips, torch.Tensor)
        shown = SALTEvalTransform(16).denormalize(clips) * 255
        assert torch.equal(shown.round(), torch.from_numpy(pixels).float().expand(2, 3, 4, 16, 16))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_an_error_that_names_it(labelled: Path, tmp_path: Path, workers: int) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    paths = [str(labelled / "test0.mp4"), str(bad)]
    config = probe_config(frames=4, size=16, step=1, workers=workers, feature_batch_size=2)
    with pytest.raises(VideoReadError, match=r"cannot read video .*bad\.mp4: not a video"):
        list(clip_batches(ViewDataset(paths, config)))
