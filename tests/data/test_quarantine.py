"""Files that hang, over several loader workers and over a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from salt_plugin.data import ClipItem, ClipSampler, StepBatchSampler, VideoDataset, VideoList
from salt_plugin.data.quarantine import Quarantine
from salt_plugin.transforms import SALTTransform
from salt_plugin.video.exact_reader import ExactReader
from salt_plugin.video.opening import ReadTimeoutError
from salt_plugin.video.reader import VideoReadError

VIDEOS, CLIPS, STEPS, AHEAD = 60, 4, 34, 6
EPOCH = VIDEOS // CLIPS


class _Disk:
    """Opens files, of which one is not read in time, always or the first time only."""

    def __init__(self, hangs: str, log: Path, always: bool) -> None:
        self.hangs, self.log, self.always = hangs, log, always

    def __call__(self, path: str, reader: str) -> ExactReader:
        if path == self.hangs:
            with self.log.open("a") as log:  # workers are processes
                log.write("opened\n")
            if self.always or self.times == 1:
                raise ReadTimeoutError(path, "not read within 60 s")
        return ExactReader(path)

    @property
    def times(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def videos(tiny_videos: Path, tmp_path: Path) -> VideoList:
    """Of which the one that the sampler draws first has a name of its own."""
    good = sorted(str(path) for path in tiny_videos.rglob("*.mp4"))
    paths = good * (VIDEOS // len(good))
    first = next(iter(StepBatchSampler(VIDEOS, CLIPS, CLIPS, STEPS, seed=0)))[0].index
    (tmp_path / "hangs.mp4").write_bytes(Path(paths[first]).read_bytes())
    paths[first] = str(tmp_path / "hangs.mp4")
    return VideoList(paths, [-1] * VIDEOS, None, [0] * VIDEOS)


def _hanging(videos: VideoList) -> str:
    return next(path for path in videos.paths if path.endswith("hangs.mp4"))


def _disk(monkeypatch: pytest.MonkeyPatch, videos: VideoList, log: Path, always: bool) -> _Disk:
    disk = _Disk(_hanging(videos), log, always)
    monkeypatch.setattr("salt_plugin.data.dataset.open_video", disk)
    return disk


def _train(
    videos: VideoList, workers: int, start: int = 0, state: dict[str, int] | None = None
) -> tuple[list[ClipItem], list[dict[str, int]]]:
    """Returns the stream, and the quarantine after each step as a checkpoint would hold it."""
    quarantine = Quarantine(videos.paths, CLIPS, AHEAD)
    quarantine.load(state or {})
    loader = DataLoader(
        VideoDataset(
            videos, ClipSampler(4, step=2), SALTTransform(32), seed=0, quarantine=quarantine
        ),
        batch_sampler=StepBatchSampler(VIDEOS, CLIPS, CLIPS, STEPS, seed=0, start_step=start),
        num_workers=workers,
        collate_fn=list,
    )
    items, states = [], []
    for done, batch in enumerate(loader, start + 1):
        quarantine.add(dict(pair for item in batch for pair in item.skipped), done)
        items += batch
        states.append(quarantine.state())
    return items, states


def _same(one: list[ClipItem], other: list[ClipItem]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.clip, b.clip) and (a.key, a.path) == (b.key, b.path)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_hangs_every_time_changes_nothing_and_is_waited_for_once(
    videos: VideoList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(Quarantine, "require", lambda self, index, step: None)
    _disk(monkeypatch, videos, tmp_path / "log", always=True)
    without, _ = _train(videos, 0)
    monkeypatch.undo()
    disk = _disk(monkeypatch, videos, tmp_path / f"log{workers}", always=True)
    items, states = _train(videos, workers)
    assert _same(items, without)
    assert disk.times == 1  # though it was drawn in more epochs than one
    assert sum(item.key.index == videos.paths.index(disk.hangs) for item in items) > 1
    again, _ = _train(videos, workers, start=20, state=states[19])
    assert _same(again, without[20 * CLIPS :])
    assert disk.times == 1


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_hung_once_is_left_out_from_the_end_of_the_epoch_on(
    videos: VideoList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    _disk(monkeypatch, videos, tmp_path / "log", always=False)
    reference, _ = _train(videos, 0)
    disk = _disk(monkeypatch, videos, tmp_path / f"log{workers}", always=False)
    items, states = _train(videos, workers)
    assert _same(items, reference)
    assert states[0] == states[-1] == {disk.hangs: EPOCH}
    assert disk.hangs not in {item.path for item in items}
    # The file is as good as new now, and what the checkpoint says is what counts.
    for start in (3, EPOCH - 1, EPOCH, 2 * EPOCH):
        resumed, _ = _train(videos, workers, start, states[start - 1])
        assert _same(resumed, reference[start * CLIPS :])
    assert disk.times == 1


def test_steps_that_workers_may_have_read_ahead_of_are_left_as_they_are() -> None:
    quarantine = Quarantine(["a", "b", "c", "b"], clips=3, ahead=5)
    for done, path in ((1, "a"), (4, "b")):
        quarantine.add({path: "not read within 60 s", "c": "empty"}, done)
    # Epochs of 4 videos end within steps 1, 2, 3, 5, 6, 7, 9 ...: the next step is the first after.
    assert quarantine.state() == {"a": 7, "b": 10}
    for index, first in ((0, 7), (1, 10), (3, 10)):
        quarantine.require(index, first - 1)
        with pytest.raises(VideoReadError, match="not read in time"):
            quarantine.require(index, first)
    quarantine.require(2, 10**9)
