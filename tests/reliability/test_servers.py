"""A server that stops answering while a run reads from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import outcome
import pytest
from faults import Step, each_step
from served import Server, serving, write_tar
from small_run import TINY

from salt_plugin.config import compose, read_yaml
from salt_plugin.errors import DataError
from salt_plugin.train import run
from salt_plugin.video import remote

REASON = "not read within 0.1 s, after 2 attempts"


@pytest.fixture
def server(tiny_videos: Path) -> Iterator[Server]:
    files = {f"/{path.parent.name}{path.name}": path for path in tiny_videos.rglob("*.mp4")}
    with serving({name: path.read_bytes() for name, path in files.items()}) as made:
        yield made


def write_list(file: Path, paths: list[str]) -> str:
    file.write_text("".join(f"{path}\n" for path in paths))
    return f"input_dir={file}"


def train(run_dir: Path, *overrides: str) -> None:
    given = ["method=pixel_teacher", *TINY, "trainer.max_steps=9"]
    run(compose([*given, "method.checkpoint.every_n_steps=1", *overrides]), run_dir)


@contextmanager
def stops(server: Server, at: int) -> Iterator[None]:
    """Has the server answer no more from a step on, and nobody wait for it long."""
    with pytest.MonkeyPatch.context() as patch:

        def stop(now: Step) -> None:
            if now.number == at:
                server.stuck = threading.Event()
                remote._block.cache_clear()
                patch.setattr(remote, "PAUSES", (0.01,))
                patch.setattr(remote, "LIMIT", 0.1)

        with each_step(stop):
            yield
    assert server.stuck is not None
    server.stuck.set()
    server.stuck = None


def test_an_address_is_an_input(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (tiny_videos / "ant" / "0.mp4").read_bytes()
    shard = write_tar(tmp_path / "shard.tar", {"a.mp4": content})
    memory = fsspec.filesystem("memory")
    memory.pipe("/prepared/shards/0.tar", shard.read_bytes())
    memory.pipe("/prepared/prepared.csv", b"path,label\ntar://a.mp4::shards/0.tar,ant\n")
    monkeypatch.chdir(tmp_path)
    inputs = ["memory://prepared", "tar://a.mp4::shard.tar"]
    train(tmp_path / "run", f"input_dir=[{','.join(inputs)}]", "trainer.max_steps=2")
    found = read_yaml(tmp_path / "run" / "config.yaml")["input_dir"]
    assert found == [inputs[0], f"tar://a.mp4::{shard}"]
    assert outcome.skipped(tmp_path / "run") == {}


def test_its_files_are_bad_files(server: Server, tiny_videos: Path, tmp_path: Path) -> None:
    far = [server.at(name) for name in ("ant0.mp4", "bee1.mp4")]
    near = [str(path) for path in sorted(tiny_videos.rglob("*.mp4"))]
    given = write_list(tmp_path / "list.csv", [*far, *near])
    with stops(server, 2):
        train(tmp_path / "run", given, "method.data.max_bad=0.5")
    assert outcome.skipped(tmp_path / "run") == dict.fromkeys(far, REASON)


@pytest.mark.slow
def test_a_run_from_it_alone_ends_with_one_error_and_goes_on_when_it_answers(
    server: Server, tmp_path: Path
) -> None:
    far = [server.at(name.removeprefix("/")) for name in sorted(server.files)]
    given = write_list(tmp_path / "list.csv", far)
    train(tmp_path / "whole", given)
    with stops(server, 4), pytest.raises(DataError) as caught:
        train(tmp_path / "cut", given)
    assert str(caught.value).startswith("10 videos in a row cannot be read")
    assert f"{far[0]}: {REASON}" in str(caught.value)
    assert outcome.saved_step(tmp_path / "cut" / "teacher") == 4
    train(tmp_path / "cut", given)
    outcome.require_same(tmp_path / "whole", tmp_path / "cut", "teacher")
    assert outcome.skipped(tmp_path / "cut") == {}
