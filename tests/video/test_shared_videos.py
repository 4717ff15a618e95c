"""Real codecs and broken files through the data set of training."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from video_kinds import BROKEN, CODECS, REFUSED, WHOLE

from salt_plugin.data import ClipItem, ClipSampler, SampleKey, VideoDataset, VideoList
from salt_plugin.data.workers import start_worker
from salt_plugin.transforms import SALTTransform
from salt_plugin.video.decoding import decode_all, picture
from salt_plugin.video.fact_cache import facts_of
from salt_plugin.video.opening import READERS, open_video

SAMPLER = ClipSampler(4, step=3)
CLIPS_OF_A_FILE = 6
# Those that fail at once; the others open, and fail where they are damaged.
UNOPENED = {name for name, reason in BROKEN.items() if reason not in (None, "decoding failed")}


def _as_they_are(frames: Tensor) -> Tensor:
    return frames.transpose(0, 1).float()


def _items(path: Path, good: Path, reader: str) -> list[ClipItem]:
    videos = VideoList([str(path), str(good)], [0, 1], None, [0, 0])
    dataset = VideoDataset(
        videos, SAMPLER, _as_they_are, seed=0, max_attempts=50, reader=reader, timeout=60
    )
    return [dataset[SampleKey(step, 0, 0)] for step in range(CLIPS_OF_A_FILE)]


def _require_right(items: list[ClipItem], truth: Path) -> None:
    """Compares clips with the frames that decoding a whole file from its start gives."""
    wanted = {}
    for item in items:
        times = open_video(item.path).times
        rng = np.random.default_rng([0, item.key.step, item.key.slot, 0])
        wanted[item.key.step] = SAMPLER.indices(times, rng).tolist()
    needed = {number for numbers in wanted.values() for number in numbers}
    frames = {}
    for number, frame in enumerate(decode_all(str(truth))):
        if number in needed:
            frames[number] = torch.from_numpy(
                picture(str(truth), frame, facts_of(str(truth))).copy()
            ).permute(2, 0, 1)
    for item in items:
        right = torch.stack([frames[number] for number in wanted[item.key.step]])
        assert torch.equal(item.clip, _as_they_are(right))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_gives_right_frames_or_a_reason(
    shared_videos: Path, tiny_videos: Path, name: str, reader: str
) -> None:
    path = shared_videos / "codecs" / name
    items = _items(path, tiny_videos / "ant" / "2.mp4", reader)
    if reader == "decord" and name in REFUSED:
        for item in items:
            assert item.path != str(path)
            assert REFUSED[name] in item.skipped[0][1]
            assert "method.data.reader=pyav" in item.skipped[0][1]
        return
    assert {item.path for item in items} == {str(path)}
    assert not any(item.skipped for item in items)
    _require_right(items, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_file_gives_right_frames_or_a_reason(
    shared_videos: Path, tiny_videos: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = shared_videos / "broken" / name
    items = _items(path, tiny_videos / "ant" / "2.mp4", "pyav")
    for item in items:
        for skipped, reason in item.skipped:
            assert skipped == str(path)
            assert (BROKEN[name] or "") in reason
            assert "\n" not in reason
    read = [item for item in items if not item.skipped]
    # A file that is damaged late may give good clips only.
    if name in UNOPENED:
        assert read == []
    elif name != "decord_corrupted.mp4":  # of the others, the undamaged file is known
        _require_right(read, shared_videos / "codecs" / WHOLE[name.rpartition(".")[2]])
    assert capfd.readouterr().err == ""


class _Look(NamedTuple):
    bad: int
    memory: int


def _look(items: list[ClipItem]) -> _Look:
    with open("/proc/self/statm") as statm:
        resident, of_files = map(int, statm.read().split()[1:3])
    pages = resident - of_files  # of a library, what was not used yet is loaded at any time
    return _Look(sum(len(item.skipped) for item in items), pages * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("opens", [1500, pytest.param(6000, marks=pytest.mark.release)])
def test_a_worker_does_not_grow_over_bad_opens(
    shared_videos: Path, tiny_videos: Path, tmp_path: Path, reader: str, opens: int
) -> None:
    names = sorted(UNOPENED)
    for name in names:
        shutil.copy(shared_videos / "broken" / name, tmp_path / name)
    # Names of their own, because a worker remembers what it could not open.
    bad = []
    for number in range(opens):
        bad.append(str(tmp_path / f"{number} {names[number % len(names)]}"))
        os.link(tmp_path / names[number % len(names)], bad[-1])
    good = [str(tiny_videos / "ant" / "0.mp4")] * (50 * opens)
    paths = bad + good
    videos = VideoList(paths, [-1] * len(paths), None, [0] * len(paths))
    keys = [
        [SampleKey(step, slot, 20 * step + slot) for slot in range(20)]
        for step in range(opens // 20)
    ]
    loader = DataLoader(
        VideoDataset(videos, SAMPLER, SALTTransform(32), seed=0, reader=reader, timeout=60),
        batch_sampler=keys,
        num_workers=1,
        collate_fn=_look,
        worker_init_fn=start_worker,
    )
    looks = list(loader)
    assert sum(look.bad for look in looks) >= opens
    warm = looks[len(looks) // 6].memory
    assert looks[-1].memory - warm < 16 * 2**20  # decord by itself: hundreds of MiB
