from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch.utils.data import DataLoader

from salt_plugin.data.clips import ClipSampler
from salt_plugin.data.dataset import ClipItem, EvalDataset, VideoDataset
from salt_plugin.data.sampler import SampleKey, StepBatchSampler
from salt_plugin.data.sources import VideoList, read_inputs
from salt_plugin.errors import DataError
from salt_plugin.transforms import SALTEvalTransform, SALTTransform
from salt_plugin.video.exact_reader import ExactReader
from salt_plugin.video.reader import VideoReadError


@pytest.fixture
def some_bad(tiny_videos: Path, tmp_path: Path) -> VideoList:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    good = read_inputs(str(tiny_videos))
    paths = [*good.paths, str(tmp_path / "zero.mp4"), str(tmp_path / "text.mp4")]
    return VideoList(paths, [*good.labels, 8, 9], None, [0] * 8)


def _dataset(videos: VideoList, seed: int = 0, **extra: Any) -> VideoDataset:
    return VideoDataset(videos, ClipSampler(4, step=2), SALTTransform(32), seed, **extra)


def _stream(
    videos: VideoList, workers: int, seed: int = 0, start: int = 0, **extra: Any
) -> list[ClipItem]:
    sampler = StepBatchSampler(len(videos.paths), 4, 4, 6, seed, start_step=start)
    loader = DataLoader(
        _dataset(videos, seed, **extra),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=list,
        persistent_workers=False,
    )
    return [item for batch in loader for item in batch]


def _same(one: list[ClipItem], other: list[ClipItem]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.clip, b.clip) and a[1:] == b[1:] for a, b in zip(one, other, strict=True)
    )


def test_item(tiny_videos: Path) -> None:
    videos = read_inputs(str(tiny_videos))
    dataset = _dataset(videos)
    key = SampleKey(step=3, slot=1, index=4)
    item = dataset[key]
    assert len(dataset) == 6
    assert item.clip.shape == (3, 4, 32, 32)
    assert item.clip.dtype == torch.uint8
    assert (item.label, item.key, item.path) == (1, key, videos.paths[4])
    assert item.skipped == []


def test_stream_is_the_same_for_any_number_of_workers(some_bad: VideoList) -> None:
    reference = _stream(some_bad, workers=0)
    assert any(item.skipped for item in reference)
    assert _same(reference, _stream(some_bad, workers=1))
    assert _same(reference, _stream(some_bad, workers=2))


def test_stream_depends_on_the_seed_only(tiny_videos: Path) -> None:
    videos = read_inputs(str(tiny_videos))
    torch.manual_seed(1)
    reference = _stream(videos, workers=0)
    torch.manual_seed(2)
    assert _same(reference, _stream(videos, workers=0))
    assert not _same(reference, _stream(videos, workers=0, seed=1))


def test_resumed_stream_continues(some_bad: VideoList) -> None:
    assert _same(_stream(some_bad, workers=0)[8:], _stream(some_bad, workers=2, start=2))


def test_cache_gives_the_same_stream_and_decodes_once(
    some_bad: VideoList, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = _stream(some_bad, workers=0)
    opened: list[str] = []
    original = ExactReader.__init__

    def counting(self: ExactReader, path: str) -> None:
        opened.append(path)
        original(self, path)

    monkeypatch.setattr(ExactReader, "__init__", counting)
    assert _same(reference, _stream(some_bad, workers=0, cache=True))
    assert len(opened) == len(set(opened))


def test_torch_generator_of_the_caller_is_left_alone(tiny_videos: Path) -> None:
    dataset = _dataset(read_inputs(str(tiny_videos)))
    before = torch.get_rng_state()
    dataset[SampleKey(0, 0, 0)]
    assert torch.equal(before, torch.get_rng_state())


def test_bad_file_is_replaced_reported_and_not_opened_again(
    some_bad: VideoList, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(some_bad)
    key = SampleKey(0, 0, index=6)
    first = dataset[key]
    assert first.skipped[0] == (some_bad.paths[6], "the file is empty (0 bytes)")
    assert first.label == some_bad.labels[some_bad.paths.index(first.path)]
    opened: list[str] = []
    original = ExactReader.__init__
    monkeypatch.setattr(
        ExactReader, "__init__", lambda self, path: (opened.append(path), original(self, path))[1]
    )
    assert _same([first], [dataset[key]])
    assert opened == [first.path]


def test_damage_in_places_leaves_the_stream_independent_of_workers(
    kinds: Path, tmp_path: Path
) -> None:
    data = bytearray((kinds / "closed.mp4").read_bytes())
    with av.open(str(kinds / "closed.mp4")) as container:
        for packet in list(container.demux(video=0))[30:34]:
            data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "hole.mp4").write_bytes(data)
    paths = [str(tmp_path / "hole.mp4"), str(kinds / "plain.avi"), str(kinds / "closed.mp4")]
    videos = VideoList(paths, [0, 1, 2], None, [0] * 3)
    reference = _stream(videos, workers=0)
    met = [item for item in reference if item.key.index == 0]
    assert 0 < sum(bool(item.skipped) for item in met) < len(met)
    assert _same(reference, _stream(videos, workers=2))
    assert _same(reference[8:], _stream(videos, workers=0, start=2))


def test_a_file_that_hangs_is_replaced_and_not_waited_for_again(
    tiny_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = read_inputs(str(tiny_videos))
    stop = threading.Event()
    hanging: list[str] = []

    def opening(path: str, reader: str) -> ExactReader:
        if path == videos.paths[2]:
            hanging.append(path)
            stop.wait(60)
        return ExactReader(path)

    monkeypatch.setattr("salt_plugin.data.dataset.open_video", opening)
    dataset = _dataset(videos, timeout=0.5)
    for step in range(2):
        item = dataset[SampleKey(step, 0, 2)]
        assert item.skipped[0] == (videos.paths[2], "not read within 0.5 s")
        assert item.path != videos.paths[2]
    stop.set()
    assert hanging == [videos.paths[2]]


def test_only_bad_files_end_in_an_error(some_bad: VideoList) -> None:
    bad = VideoList(some_bad.paths[6:], [-1, -1], None, [0, 0])
    with pytest.raises(DataError, match="5 videos in a row"):
        _dataset(bad, max_attempts=5)[SampleKey(0, 0, 0)]


def test_start_and_augmentation_vary_over_steps_and_slots(tiny_videos: Path) -> None:
    dataset = _dataset(read_inputs(str(tiny_videos)))
    starts = {
        dataset[SampleKey(step, slot, 2)].clip[0, 0, 0, 0].item()
        for step in range(8)
        for slot in range(4)
    }
    assert len(starts) > 8


def test_evaluation_takes_the_centred_clip(tiny_videos: Path, tmp_path: Path) -> None:
    videos = read_inputs(str(tiny_videos))
    transform = SALTEvalTransform(32)
    clip, label = EvalDataset(videos, ClipSampler(4, step=2), transform)[5]
    grey = transform.denormalize(clip).mean(dim=(0, 2, 3)) * 255
    torch.testing.assert_close(grey, torch.tensor([65.0, 85, 105, 125]), atol=3, rtol=0)
    assert (clip.shape, label) == ((3, 4, 32, 32), 1)
    missing = VideoList([str(tmp_path / "none.mp4")], [0], None, [0])
    with pytest.raises(VideoReadError, match="No such file"):
        EvalDataset(missing, ClipSampler(4, step=2), transform)[0]


def test_real_and_broken_files_together(shared_videos: Path) -> None:
    videos = read_inputs(
        [str(shared_videos / "ut_interaction/unlabelled.csv"), str(shared_videos / "broken")]
    )
    broken = [number for number, source in enumerate(videos.source) if source == 1]
    dataset = VideoDataset(videos, ClipSampler(8, fps=8.0), SALTTransform(64), seed=0)
    items = [dataset[SampleKey(0, slot, index)] for slot, index in enumerate(broken)]
    assert all(item.clip.shape == (3, 8, 64, 64) for item in items)
    assert sum(bool(item.skipped) for item in items) >= 10
