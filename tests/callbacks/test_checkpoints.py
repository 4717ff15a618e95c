"""A stage goes on from its last whole checkpoint, whatever became of the files."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import TINY

from salt_plugin.callbacks.resume import resume_point
from salt_plugin.checkpoints import read_card
from salt_plugin.config import compose
from salt_plugin.errors import CheckpointError, SaltError
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run

SMALL = [
    *TINY,
    "method=pixel_teacher",
    "trainer.max_steps=5",
    "method.checkpoint.every_n_steps=2",
]


def train(videos: Path, run_dir: Path) -> dict[str, Any]:
    return run(compose([*SMALL, f"input_dir={videos}"]), run_dir)


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


def test_the_last_two_are_kept(finished: Path) -> None:
    steps = [torch.load(path, weights_only=True)["global_step"] for path in checkpoints(finished)]
    assert steps == [5, 4]
    assert len(list(checkpoints(finished)[0].parent.iterdir())) == 2


@pytest.mark.parametrize("damage", ["torn", "flipped", "absent"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    finished: Path, unfinished: Path, tiny_videos: Path, damage: str
) -> None:
    last, previous = checkpoints(unfinished)
    content = bytearray(last.read_bytes())
    if damage == "torn":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    if damage == "absent":  # killed between two renames
        last.unlink()
        train(tiny_videos, unfinished)
    else:
        with pytest.warns(UserWarning, match=r"last\.ckpt cannot be .*previous\.ckpt, step 4, is"):
            train(tiny_videos, unfinished)
    cards = [read_card(root / "teacher" / "encoder.safetensors") for root in (finished, unfinished)]
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"]
    rows = [read_metrics(root / "teacher" / "metrics.csv") for root in (finished, unfinished)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert resume_point(last) == (last, 5)
    assert resume_point(previous) == (previous, 4)


def test_a_flipped_bit_is_noticed_or_changes_nothing(unfinished: Path) -> None:
    last, previous = checkpoints(unfinished)
    content = last.read_bytes()
    state = torch.load(last, weights_only=True)["state_dict"]
    places = random.Random(0).sample(range(len(content)), 20)
    noticed = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        last.write_bytes(flipped)
        try:
            with pytest.warns(UserWarning, match="is used"):
                assert resume_point(last).path == previous
            noticed += 1
        except pytest.fail.Exception:  # no warning
            found = torch.load(last, weights_only=True)["state_dict"]
            assert all(torch.equal(found[name], state[name]) for name in state)
    assert noticed > 10


def test_without_a_whole_checkpoint_all_are_named(unfinished: Path) -> None:
    for path in checkpoints(unfinished):
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"last\.ckpt .*previous\.ckpt .*delete .*checkpoint"):
        resume_point(checkpoints(unfinished)[0])


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
    assert not checkpoints(tmp_path)[0].exists()
    full_disk(resource.RLIM_INFINITY)
    train(tiny_videos, tmp_path)
    cards = [read_card(root / "teacher" / "encoder.safetensors") for root in (finished, tmp_path)]
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"]
