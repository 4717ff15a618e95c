"""A stage goes on from its last whole checkpoint, whatever became of the files."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import outcome
import pytest
from faults import power_failure
from small_run import TINY

from salt_plugin.checkpoints import read_torch_file
from salt_plugin.config import compose
from salt_plugin.errors import CheckpointError, SaltError
from salt_plugin.train import run

SMALL = [
    *TINY,
    "method=pixel_teacher",
    "trainer.max_steps=5",
    "method.checkpoint.every_n_steps=2",
]


def train(videos: Path, run_dir: Path, *overrides: str) -> dict[str, Any]:
    return run(compose([*SMALL, f"input_dir={videos}", *overrides]), run_dir)


@pytest.fixture(scope="module")
def finished(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "teacher"
    train(tiny_videos, run_dir)
    return run_dir


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The run as if it had been killed after its last checkpoint, step 5; the one before is 4."""
    shutil.copytree(finished, tmp_path / "run")
    for leftover in ("summary.json", "teacher/encoder.safetensors", "teacher/encoder.json"):
        (tmp_path / "run" / leftover).unlink()
    return tmp_path / "run"


def checkpoints(run_dir: Path) -> tuple[Path, Path]:
    folder = run_dir / "teacher" / "checkpoints"
    return folder / "last.ckpt", folder / "previous.ckpt"


def saved_steps(run_dir: Path) -> list[int]:
    return [
        outcome.saved_step(run_dir / "teacher", name) for name in ("last.ckpt", "previous.ckpt")
    ]


def flip(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def test_the_last_two_are_kept(finished: Path) -> None:
    assert saved_steps(finished) == [5, 4]
    assert len(list(checkpoints(finished)[0].parent.iterdir())) == 2


@pytest.mark.parametrize("damage", ["torn", "flipped", "absent"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    finished: Path, unfinished: Path, tiny_videos: Path, damage: str
) -> None:
    last, _ = checkpoints(unfinished)
    content = last.read_bytes()
    if damage == "absent":  # killed between two renames
        last.unlink()
        train(tiny_videos, unfinished)
    else:
        half = len(content) // 2
        last.write_bytes(content[:half] if damage == "torn" else flip(content, half))
        with pytest.warns(UserWarning, match=r"last\.ckpt cannot be .*previous\.ckpt, step 4, is"):
            train(tiny_videos, unfinished)
    outcome.require_same(finished, unfinished, "teacher")
    assert saved_steps(unfinished) == [5, 4]


def test_figures_of_a_stage_that_is_done_outlive_a_damaged_checkpoint(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (run_dir / "summary.json").unlink()
    (run_dir / "figures" / "reconstruction.png").unlink()
    last, _ = checkpoints(run_dir)
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"last\.ckpt cannot be .*previous\.ckpt, step 4, is"):
        train(tiny_videos, run_dir)
    assert (run_dir / "figures" / "reconstruction.png").is_file()


def test_a_flipped_bit_is_noticed_or_changes_nothing(finished: Path, tmp_path: Path) -> None:
    content = checkpoints(finished)[0].read_bytes()
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(content)
    whole = read_torch_file(copy, checksums=True)
    noticed = 0
    for number, place in enumerate(random.Random(0).sample(range(len(content)), 20)):
        flipped = tmp_path / f"{number}.ckpt"
        flipped.write_bytes(flip(content, place))
        try:
            assert outcome.equal(read_torch_file(flipped, checksums=True), whole)
        except CheckpointError:
            noticed += 1
    assert noticed > 10


def test_without_a_whole_checkpoint_all_are_named(unfinished: Path, tiny_videos: Path) -> None:
    for path in checkpoints(unfinished):
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"last\.ckpt .*previous\.ckpt .*delete .*checkpoint"):
        train(tiny_videos, unfinished)


@pytest.fixture
def full_disk() -> Iterator[Any]:
    """Sets the largest file that this process may write, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_training_only_if_the_last_step_cannot_be_saved(
    finished: Path, tiny_videos: Path, tmp_path: Path, full_disk: Any
) -> None:
    full_disk(checkpoints(finished)[0].stat().st_size // 2)
    with (
        pytest.warns(UserWarning, match=r"of step 2 could not be written .*and training goes on"),
        pytest.raises(SaltError, match=r"step 5 could not be written .*up to step 0 is kept"),
    ):
        train(tiny_videos, tmp_path)
    assert not any(checkpoints(tmp_path)[0].parent.iterdir())
    full_disk(resource.RLIM_INFINITY)
    train(tiny_videos, tmp_path)
    outcome.require_same(finished, tmp_path, "teacher")


KEEP = "method.checkpoint.keep_every=2"


def kept_steps(run_dir: Path) -> dict[str, int]:
    folder = run_dir / "teacher" / "checkpoints"
    return {
        path.name: outcome.saved_step(run_dir / "teacher", path.name) for path in folder.iterdir()
    }


def no_links(*_: Any) -> None:
    raise PermissionError(1, "as a file system without links")


@pytest.mark.parametrize("links", [True, False])
def test_every_so_many_checkpoints_are_kept_beside_the_last_two(
    finished: Path, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr("os.link", no_links)
    with power_failure(4):
        train(tiny_videos, tmp_path, KEEP, "method.checkpoint.every_n_steps=3")
    assert kept_steps(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2, "step-2.ckpt": 2}
    train(tiny_videos, tmp_path, KEEP)
    kept = {"last.ckpt": 5, "previous.ckpt": 4, "step-2.ckpt": 2, "step-4.ckpt": 4}
    assert kept_steps(tmp_path) == kept
    outcome.require_same(finished, tmp_path, "teacher")


def test_what_a_killed_attempt_has_half_kept_is_made_again_and_never_written_over(
    tiny_videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher" / "checkpoints"
    with power_failure(3):
        train(tiny_videos, tmp_path, KEEP)
    # As if it had been killed before the last rename: the kept one is the unfinished one as well.
    (folder / "last.ckpt").rename(folder / "last.tmp")
    with power_failure(2):
        train(tiny_videos, tmp_path, KEEP, "method.checkpoint.every_n_steps=1")
    found = kept_steps(tmp_path)
    assert (found["step-2.ckpt"], found["last.ckpt"]) == (2, 1)


def test_a_checkpoint_that_cannot_be_kept_takes_nothing_from_the_last(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", no_links)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.warns(UserWarning, match=r"step-2\.ckpt could not be kept .*No space left"):
        train(tiny_videos, tmp_path, KEEP)
    assert kept_steps(tmp_path) == {"last.ckpt": 5, "previous.ckpt": 4}
