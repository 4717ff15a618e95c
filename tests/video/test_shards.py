"""Members of tar files, and addresses that fsspec opens."""

from __future__ import annotations

import importlib.util
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from served import Server, serving, write_tar

from salt_plugin.data import (
    ClipSampler,
    SampleKey,
    VideoDataset,
    VideoReadError,
    open_video,
    read_inputs,
)
from salt_plugin.data.sources import VideoList
from salt_plugin.errors import DataError
from salt_plugin.transforms import SALTTransform
from salt_plugin.video import places, remote, shards
from salt_plugin.video.check import check_video


def same(one: str, other: str) -> bool:
    a, b = open_video(one), open_video(other)
    return a.times.tolist() == b.times.tolist() and torch.equal(
        a.frames(np.arange(len(a))), b.frames(np.arange(len(b)))
    )


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (value, value, value)).save(file, "png")
    return file.getvalue()


@pytest.fixture
def shard(tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard as others write them: videos, their classes, and the frames of a clip."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    members = {
        "ant0.mp4": (tiny_videos / "ant" / "0.mp4").read_bytes(),
        "ant0.cls": b"0",
        "deep/bee1.mp4": (tiny_videos / "bee" / "1.mp4").read_bytes(),
        "deep/bee1.cls": b"1",
        "still.png": png(9),
        "f.clip.json": b'{"fps": 5}',
    }
    members |= {f"f.{number:06d}.png": png(number) for number in range(1, 8)}
    return write_tar(tmp_path / "shard.tar", members)


def test_members_are_read_as_their_files(shard: Path, tiny_videos: Path) -> None:
    assert same(f"tar://ant0.mp4::{shard}", str(tiny_videos / "ant" / "0.mp4"))
    assert same(f"tar://deep/bee1.mp4::{shard}", str(tiny_videos / "bee" / "1.mp4"))
    assert open_video(f"tar://still.png::{shard}").frames(np.zeros(3, int)).unique().item() == 9
    frames = open_video(f"tar://f.%06d.png::{shard}")
    assert frames.times.tolist() == [number / 5 for number in range(7)]
    assert frames.frames(np.array([6, 0])).float().mean((1, 2, 3)).tolist() == [7, 1]


def test_a_clip_reads_its_own_frames_alone(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = open_video(f"tar://f.%06d.png::{shard}")
    read = []
    fetch = places.LocalFile.fetch
    monkeypatch.setattr(
        places.LocalFile,
        "fetch",
        lambda self, start, stop: read.append(stop - start) or fetch(self, start, stop),
    )
    frames.frames(np.array([2, 5]))
    assert read == [len(png(3)), len(png(6))]


def test_the_index_of_a_foreign_shard_is_made_once(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"tar://ant0.mp4::{shard}"
    open_video(path)
    shards._shard.cache_clear()
    monkeypatch.setattr(shards, "read_members", None)
    open_video(path)
    with pytest.raises(
        VideoReadError, match=r"bee\.mp4::.*: no such member in the shard: none of its 13 has"
    ):
        open_video(f"tar://bee.mp4::{shard}")


def test_an_index_beside_a_shard_is_compared_with_it(shard: Path) -> None:
    index = shards.Shard(str(shard), places.LocalFile(str(shard)))._index
    np.save(f"{shard}{shards.INDEX_SUFFIX}", index)
    assert len(open_video(f"tar://ant0.mp4::{shard}")) == 12
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoReadError, match="its index is of one with"):
        open_video(f"tar://ant0.mp4::{shard}")


def test_a_shard_that_was_cut_gives_what_is_whole(shard: Path) -> None:
    whole = shard.read_bytes()
    shard.write_bytes(whole[:2000])
    with pytest.raises(VideoReadError, match=r"ant0\.mp4::.*: the shard was cut: this member ends"):
        open_video(f"tar://ant0.mp4::{shard}")
    shard.write_bytes(whole[: whole.index(b"deep/bee1.mp4") + 1000])
    assert len(open_video(f"tar://ant0.mp4::{shard}")) == 12
    shard.write_bytes(b"no tar file" * 100)
    with pytest.raises(VideoReadError, match="not a plain tar file"):
        open_video(f"tar://ant0.mp4::{shard}")


def test_a_member_of_the_very_name_goes_before_numbers(tmp_path: Path) -> None:
    members = {"100%d.png": png(7), **{f"{n}.png": png(n) for n in (*range(255), 256)}}
    shard = write_tar(tmp_path / "shard.tar", members)
    assert open_video(f"tar://100%d.png::{shard}").frames(np.zeros(1, int)).unique().item() == 7
    with pytest.raises(VideoReadError, match="an image is missing, or there twice: 254 precedes"):
        open_video(f"tar://%d.png::{shard}")
    (tmp_path / "100%d.png").write_bytes(png(8))
    assert open_video(f"{tmp_path}/100%d.png").frames(np.zeros(1, int)).unique().item() == 8


def test_a_shard_that_was_cut_is_named_when_it_is_listed(
    shard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = shard.read_bytes()
    shard.write_bytes(whole[: whole.index(b"deep/bee1.mp4") + 1000])
    assert len(read_inputs(str(shard)).paths) == 2
    assert "shard.tar was cut: it has" in caplog.text
    assert "its last member 'deep/bee1.mp4' ends at" in caplog.text


def test_lists_and_inputs_of_shards(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "path,label\ntar://ant0.mp4::shard.tar,0\ntar://f.%06d.png::shard.tar,1\n"
    )
    (tmp_path / "b.txt").write_text(f"tar://still.png::{shard}\ntar://ant0.mp4::shard.tar\n")
    (tmp_path / "c.txt").write_text("tar://ant0.mp4::shard.tar 1\ns3://b/k.mp4 0\n")
    a, b, c = (read_inputs(str(tmp_path / name)) for name in ("a.csv", "b.txt", "c.txt"))
    assert a.paths == [f"tar://ant0.mp4::{shard}", f"tar://f.%06d.png::{shard}"]
    assert a.labels == [0, 1]
    assert b.paths == [f"tar://still.png::{shard}", f"tar://ant0.mp4::{shard}"]
    assert (c.paths[1], c.labels) == ("s3://b/k.mp4", [1, 0])
    videos = read_inputs(str(shard))
    assert videos.paths == [f"tar://ant0.mp4::{shard}", f"tar://deep/bee1.mp4::{shard}"]
    assert videos.labels == [0, 1]
    (tmp_path / "folder").mkdir()
    shutil.copy(shard, tmp_path / "folder" / "x.tar")
    assert read_inputs(str(tmp_path / "folder")).labels == [0, 1]


def test_check_of_members(shard: Path, tiny_videos: Path) -> None:
    member = check_video(f"tar://ant0.mp4::{shard}", "pyav", 4, 0)
    loose = check_video(str(tiny_videos / "ant" / "0.mp4"), "pyav", 4, 0)
    assert (member.reason, member.frames, member.content) == (None, 12, loose.content)
    assert member.danger == "decord opens local files alone"
    with pytest.raises(VideoReadError, match="decord opens local files alone"):
        open_video(f"tar://ant0.mp4::{shard}", "decord")
    assert len(open_video(f"tar://ant0.mp4::{shard}", "auto")) == 12


def test_addresses_in_memory(tiny_videos: Path, shard: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/salt/a.mp4", (tiny_videos / "ant" / "0.mp4").read_bytes())
    memory.pipe("/salt/shard.tar", shard.read_bytes())
    memory.pipe({f"/salt/clip/{number:03d}.png": png(number) for number in range(5)})
    assert same("memory://salt/a.mp4", str(tiny_videos / "ant" / "0.mp4"))
    assert same("tar://ant0.mp4::memory://salt/shard.tar", str(tiny_videos / "ant" / "0.mp4"))
    assert len(open_video("tar://f.%06d.png::memory://salt/shard.tar")) == 7
    assert len(open_video("memory://salt/clip/%03d.png")) == 5
    memory.pipe("/shards/one.tar", shard.read_bytes())
    assert read_inputs("memory://shards").labels == [0, 1]
    memory.pipe("/out/prepared.csv", b"path,label\ntar://f.%06d.png::shards/one.tar,bee\n")
    memory.pipe("/out/shards/one.tar", shard.read_bytes())
    for given in ("memory://out", "memory://out/prepared.csv"):
        videos = read_inputs(given)
        assert (videos.labels, videos.classes) == ([0], ["bee"])
        assert len(open_video(videos.paths[0])) == 7
    memory.pipe("/out/bad.csv", b"path,label\na.mp4,bee\nb.mp4,7\n")
    with pytest.raises(DataError, match=r"^memory://out/bad\.csv has 1 broken line"):
        read_inputs("memory://out/bad.csv")
    with pytest.raises(VideoReadError, match="FileNotFoundError"):
        open_video("memory://salt/absent.mp4")
    with pytest.raises(VideoReadError, match="Protocol not known: nosuch"):
        open_video("nosuch://a.mp4")


@pytest.fixture
def server(tiny_videos: Path, shard: Path) -> Iterator[Server]:
    files = {"/shard.tar": shard.read_bytes()}
    for path in tiny_videos.rglob("*.mp4"):
        files[f"/{path.parent.name}{path.name}"] = path.read_bytes()
    with serving(files) as made:
        yield made


def test_http(server: Server, tiny_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.02, 0.04))
    local = str(tiny_videos / "ant" / "2.mp4")
    server.failures = 3
    assert same(server.at("ant2.mp4"), local)
    assert same(f"tar://ant0.mp4::{server.at('shard.tar')}", str(tiny_videos / "ant" / "0.mp4"))
    monkeypatch.setattr(remote, "BLOCK", 512)
    assert same(server.at("ant2.mp4"), local)
    assert all(stop - start <= 512 for start, stop in server.asked[-3:])
    with pytest.raises(VideoReadError, match="FileNotFoundError"):
        open_video(server.at("absent.mp4"))
    server.failures = 10**6
    with pytest.raises(VideoReadError, match="after 4 attempts"):
        open_video(server.at("bee2.mp4"))


def test_bad_addresses_are_replaced_as_bad_files(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", ())
    names = ("ant0.mp4", "absent.mp4", "ant1.mp4", "bee0.mp4")
    videos = VideoList([server.at(name) for name in names], [0] * 4, None, [0] * 4)
    dataset = VideoDataset(videos, ClipSampler(4, step=1), SALTTransform(16), seed=0)
    item = dataset[SampleKey(0, 0, 1)]
    assert next(path for path, _ in item.skipped).endswith("absent.mp4")
    assert torch.equal(item.clip, dataset[SampleKey(0, 0, 1)].clip)


def test_a_server_that_stops_answering_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    monkeypatch.setattr(remote, "LIMIT", 0.3)
    video = open_video(server.at("bee1.mp4"))
    server.stuck = threading.Event()
    began = time.monotonic()
    with pytest.raises(VideoReadError, match=r"not read within 0\.3 s, after 2 attempts"):
        open_video(server.at("ant0.mp4"))
    assert time.monotonic() - began < 5
    assert len(video) == 16


def test_what_does_not_come_is_no_damage(kinds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the line breaks: also while frames are counted by decoding them."""
    monkeypatch.setattr(remote, "PAUSES", ())
    monkeypatch.setattr(remote, "BLOCK", 4096)
    monkeypatch.setattr(remote, "_block", remote._block.__wrapped__)
    fsspec.filesystem("memory").pipe("/salt/b.avi", (kinds / "bframes.avi").read_bytes())
    part, left = remote._part, [0]

    def breaks(address: str, start: int, stop: int) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the line is down")
        return part(address, start, stop)

    monkeypatch.setattr(remote, "_part", breaks)
    found = set()
    for parts in range(0, 200, 3):
        left[0] = parts
        try:
            found.add(len(open_video("memory://salt/b.avi")))
            break
        except VideoReadError as error:
            found.add(error.reason)
    assert found == {60, "OSError: the line is down, after 1 attempts"}


def test_a_package_that_is_missing_is_an_error_that_names_it() -> None:
    if importlib.util.find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed")
    with pytest.raises(DataError, match=r"s3://b/a\.mp4 cannot be opened here: .*Install the pack"):
        open_video("s3://b/a.mp4")
