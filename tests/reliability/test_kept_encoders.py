"""What `method.encoders_every_n_steps` leaves, seen from whole runs."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch
from faults import power_failure, spoilt

from salt_plugin import load_encoder
from salt_plugin.checkpoints import read_card
from salt_plugin.config import compose
from salt_plugin.errors import SaltError
from salt_plugin.run_directory import read_metrics
from salt_plugin.stage_directory import StageDirectory
from salt_plugin.train import run

TINY = [
    "method.encoder=vit_nano",
    "method.clip.size=32",
    "method.clip.frames=4",
    "method.clip.step=1",
    "method.model.patch_size=8",
    "method.model.drop_path=0.3",
    "method.model.predictor.dim=24",
    "method.model.predictor.depth=1",
    "method.model.predictor.num_heads=2",
    "loader.batch_size=2",
    "loader.num_workers=0",
    "trainer.precision=32",
    "trainer.max_steps=7",
    "method.checkpoint.every_n_steps=3",
]
EVERY_TWO = "method.encoders_every_n_steps=2"
AT_ONCE = "method.max_nonfinite_steps=1"


def train(videos: Path, run_dir: Path, *overrides: str, method: str = "salt") -> None:
    first = ["method.teacher.max_steps=2"] if method == "salt" else []
    run(compose([f"method={method}", f"input_dir={videos}", *TINY, *first, *overrides]), run_dir)


def fingerprints(stage: StageDirectory) -> dict[int, str]:
    return {step: read_card(path)["fingerprint"] for step, path in stage.kept_encoders().items()}


@pytest.fixture(scope="module")
def whole(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_videos, run_dir, EVERY_TWO)
    return run_dir


def test_the_student_is_kept_at_the_interval_and_at_the_end(whole: Path) -> None:
    names = {path.name for path in (whole / "student" / "encoders").iterdir()}
    steps = (2, 4, 6, 7)
    assert names == {f"step-{n}.{suffix}" for n in steps for suffix in ("safetensors", "json")}
    student = StageDirectory(whole / "student")
    found = fingerprints(student)
    assert list(found) == list(steps)
    assert len(set(found.values())) == 4
    assert found[7] == read_card(student.encoder)["fingerprint"]
    assert load_encoder(student.encoder_at(4))(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 32, 128)
    assert not (whole / "teacher" / "encoders").exists()


def test_a_card_tells_the_step_its_loss_and_the_teacher(whole: Path) -> None:
    student = StageDirectory(whole / "student")
    teacher = read_card(whole / "teacher" / "encoder.safetensors")["fingerprint"]
    losses = [row["loss"] for row in read_metrics(student.metrics)]
    for step, path in student.kept_encoders().items():
        card = read_card(path)
        assert card["step"] == card["training"]["steps"] == card["compute"]["steps"] == step
        assert card["loss"] == pytest.approx(statistics.fmean(losses[:step]))
        assert card["teacher_fingerprint"] == teacher
        assert card["input"]["frames"] == 4


def test_keeping_encoders_changes_nothing_else_and_is_off_by_default(
    whole: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    train(tiny_videos, tmp_path)
    assert not list(tmp_path.rglob("step-*"))
    assert not list(tmp_path.rglob("encoders"))
    final = [read_card(root / "student" / "encoder.safetensors") for root in (whole, tmp_path)]
    assert final[0]["fingerprint"] == final[1]["fingerprint"]


@pytest.mark.parametrize("step", [4, 6])
def test_an_interrupted_run_keeps_the_same_encoders(
    whole: Path, tiny_videos: Path, tmp_path: Path, step: int
) -> None:
    with power_failure(step, "student"):
        train(tiny_videos, tmp_path, EVERY_TWO)
    train(tiny_videos, tmp_path, EVERY_TWO)
    stages = [StageDirectory(root / "student") for root in (whole, tmp_path)]
    assert fingerprints(stages[0]) == fingerprints(stages[1])
    for step, path in stages[0].kept_encoders().items():
        resumed = read_card(stages[1].encoder_at(step))
        assert resumed["loss"] == read_card(path)["loss"]


def test_what_lies_beyond_the_step_to_go_on_from_is_removed(
    tiny_videos: Path, tmp_path: Path
) -> None:
    with power_failure(6, "student"):
        train(tiny_videos, tmp_path, "method.encoders_every_n_steps=1")
    student = StageDirectory(tmp_path / "student")
    assert list(student.kept_encoders()) == [1, 2, 3, 4, 5]
    train(tiny_videos, tmp_path, EVERY_TWO)  # the interval may change: it changes no result
    assert list(student.kept_encoders()) == [1, 2, 3, 4, 6, 7]


def test_a_pixel_teacher_alone_keeps_its_own(tiny_videos: Path, tmp_path: Path) -> None:
    train(tiny_videos, tmp_path, "method.encoders_every_n_steps=5", method="pixel_teacher")
    teacher = StageDirectory(tmp_path / "teacher")
    assert list(teacher.kept_encoders()) == [5, 7]
    assert read_card(teacher.encoder_at(5))["teacher_fingerprint"] is None


def test_an_encoder_of_a_diverged_step_is_not_kept(tiny_videos: Path, tmp_path: Path) -> None:
    with spoilt({4}), pytest.raises(SaltError, match=r"loss is inf .* at step 4"):
        train(tiny_videos, tmp_path, EVERY_TWO, AT_ONCE, method="pixel_teacher")
    assert list(StageDirectory(tmp_path / "teacher").kept_encoders()) == [2]
