"""Several views of a clip, from the transform to the batch."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from salt_plugin.batch import Batch, MaskCollator, Views
from salt_plugin.config import compose, load_config
from salt_plugin.data.dataset import VideoDataset
from salt_plugin.data.sampler import SampleKey
from salt_plugin.data.stream import clip_sampler, training_videos
from salt_plugin.errors import ConfigError
from salt_plugin.masks import TokenDropping
from salt_plugin.training.parts import build_parts
from salt_plugin.transforms import MultiViewTransform


def _frames(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 3, 60, 80), dtype=torch.uint8, generator=generator)


def test_views_have_their_sizes_and_differ() -> None:
    torch.manual_seed(0)
    views = MultiViewTransform(224, local_views=3)(_frames())
    assert views.clip.shape == (3, 4, 224, 224)
    assert views.local.shape == (3, 3, 4, 96, 96)
    assert views.clip.dtype == views.local.dtype == torch.uint8
    assert not torch.equal(views.local[0], views.local[1])
    local = MultiViewTransform(32, local_size=24, patch_size=8)(_frames()).local
    assert local.shape[-2:] == (24, 24)


def test_all_frames_of_a_view_are_augmented_alike() -> None:
    still = _frames()[:1].expand(4, -1, -1, -1)
    for seed in range(20):
        torch.manual_seed(seed)
        views = MultiViewTransform(32, local_views=2)(still)
        for view in (views.clip, *views.local):
            assert torch.equal(view, view[:, :1].expand_as(view))


def test_only_local_views_are_flipped_and_coloured() -> None:
    red = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    red[:, 0, :, :20] = 200
    views = MultiViewTransform(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), local_views=60)
    torch.manual_seed(0)
    found = views(red)
    assert (found.clip[0, :, :, :12] > 150).all()
    assert (found.clip[0, :, :, 20:] < 60).all()
    assert (found.clip[1:] == 0).all()
    grey = [(view[0] == view[1]).all() for view in found.local]
    assert 3 <= sum(map(int, grey)) <= 25  # a fifth of them


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"local_views": 0}, r"method\.transform\.local_views=0: expected at least 1"),
        ({"jitter": [0.4]}, r"method\.transform\.jitter=\[0\.4\]: expected four numbers"),
        ({"local_scale": [0.5, 0.1]}, r"expected two numbers, 0 < lowest <= highest"),
        ({"hflip": 2}, r"expected a probability"),
    ],
)
def test_bad_numbers(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiViewTransform(32, **given)


class Item(NamedTuple):
    clip: Tensor | Views
    label: int
    key: SampleKey
    path: str = ""
    skipped: list[tuple[str, str]] = []  # noqa: RUF012


def test_a_batch_holds_the_views_of_its_clips_and_a_context_for_each() -> None:
    transform = MultiViewTransform(32, local_views=2, patch_size=8)
    torch.manual_seed(0)
    items = [Item(transform(_frames(i)), i, SampleKey(5, i, i)) for i in range(5)]
    collate = MaskCollator(TokenDropping(0.5, 2), (4, 4, 4), seed=7, group=3)
    batch: Batch = next(iter(DataLoader(items, 5, collate_fn=collate)))  # type: ignore[arg-type]
    assert batch.clips.shape == (5, 3, 4, 32, 32)
    assert batch.local_views is not None
    assert batch.local_views.shape == (5, 2, 3, 4, 16, 16)
    for i, item in enumerate(items):
        assert isinstance(item.clip, Views)
        assert torch.equal(batch.clips[i], item.clip.clip)
        assert torch.equal(batch.local_views[i], item.clip.local)
    assert (batch.seed, batch.step) == (7, 5)
    assert [context.shape for context in batch.contexts()] == [(5, 32), (5, 8), (5, 8)]
    moved = batch.to("meta").local_views
    assert moved is not None
    assert moved.is_meta


def test_views_are_functions_of_seed_step_and_slot(tiny_videos) -> None:  # type: ignore[no-untyped-def]
    config = load_config(compose(["method=levjepa", f"input_dir={tiny_videos}"]))
    config.method.clip.frames = 4
    transform = MultiViewTransform(32, local_views=2)
    one, other = (
        VideoDataset(training_videos(config), clip_sampler(config), transform, seed=3)
        for _ in range(2)
    )
    first, again = one[SampleKey(2, 1, 0)].clip, other[SampleKey(2, 1, 0)].clip
    assert isinstance(first, Views)
    assert isinstance(again, Views)
    assert torch.equal(first.clip, again.clip)
    assert torch.equal(first.local, again.local)


def test_masks_for_other_views_than_the_transform_makes_are_an_error() -> None:
    config = load_config(compose(["method=levjepa", "method.masks.local_views=3"]))
    with pytest.raises(ConfigError, match=r"makes 10 local views of a clip, and method\.masks"):
        build_parts(config)
    config = load_config(compose(["method=salt"]))
    config.method.masks = {"_target_": "salt_plugin.masks.TokenDropping", "local_views": 2}
    with pytest.raises(ConfigError, match="makes 0 local views"):
        build_parts(config)
