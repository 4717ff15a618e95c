from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import power_failure, spoilt
from safetensors.torch import load_file
from small_run import SMALL

from salt_plugin import load_encoder
from salt_plugin.checkpoints import read_card
from salt_plugin.config import compose
from salt_plugin.errors import CheckpointError, ConfigError, DataError, SaltError
from salt_plugin.evaluation import open_encoder
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run


def train(
    videos: Path | str, run_dir: Path, *overrides: str, method: str = "salt"
) -> dict[str, Any]:
    steps = ["trainer.max_steps=5"]
    if method == "salt":
        steps.append("method.teacher.max_steps=4")
    cfg = compose([f"method={method}", f"input_dir={videos}", *SMALL, *steps, *overrides])
    return run(cfg, run_dir)


@pytest.fixture(scope="module")
def finished(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "salt"
    train(tiny_videos, run_dir)
    return run_dir


def test_a_run_leaves_what_the_layout_promises(finished: Path) -> None:
    for stage, steps in (("teacher", 4), ("student", 5)):
        folder = finished / stage
        rows = read_metrics(folder / "metrics.csv")
        assert [row["step"] for row in rows] == list(range(1, steps + 1))
        ledger = json.loads((folder / "compute.json").read_text())
        assert ledger["steps"] == steps
        assert ledger["clips"] == 4 * steps
        assert ledger["total_flops"] == sum(ledger["flops"].values()) == rows[-1]["flops"]
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        assert list((folder / "tensorboard").iterdir())
        assert read_card(folder / "encoder.safetensors")["training"]["steps"] == steps
    for figure in ("masks", "reconstruction", "losses"):
        assert (finished / "figures" / f"{figure}.png").stat().st_size > 5000
    assert outcome.skipped(finished) == {}
    assert (finished / "config.yaml").is_file()


def test_the_student_names_the_teacher_that_stage_one_left(finished: Path) -> None:
    teacher = read_card(finished / "teacher" / "encoder.safetensors")
    student = read_card(finished / "student" / "encoder.safetensors")
    assert student["teacher_fingerprint"] == teacher["fingerprint"]
    assert teacher["teacher_fingerprint"] is None


def test_an_encoder_is_used_in_three_lines(finished: Path) -> None:
    encoder = load_encoder(finished)
    features = encoder(torch.randn(2, 3, 8, 64, 64))
    assert features.shape == (2, 4 * 4 * 4, 128)
    student = load_file(finished / "student" / "encoder.safetensors")
    assert torch.equal(encoder.state_dict()["norm.weight"], student["norm.weight"])


def test_a_finished_run_returns_at_once_and_writes_nothing(
    finished: Path, tiny_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    train(tiny_videos, finished)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert "load_encoder" in capsys.readouterr().out


def test_another_configuration_in_the_same_folder_is_refused(
    finished: Path, tiny_videos: Path
) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr was .* and is now 0\.5"):
        train(tiny_videos, finished, "optimizer.lr=0.5")


def test_a_key_of_earlier_versions_has_no_effect(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "old")
    config = tmp_path / "old" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("\n  data:\n", "\n  data:\n    root: /videos\n"))
    assert config.read_text() != text
    train(tiny_videos, tmp_path / "old")
    assert load_encoder(tmp_path / "old").shape == load_encoder(finished).shape


def test_keys_that_change_no_result_may_differ_on_resume(finished: Path, tiny_videos: Path) -> None:
    train(tiny_videos, finished, "loader.num_workers=1", "method.checkpoint.every_n_steps=3")


@pytest.mark.parametrize(("stage", "step"), [("teacher", 4), ("student", 5)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    finished: Path, tiny_videos: Path, tmp_path: Path, stage: str, step: int
) -> None:
    every_two = "method.checkpoint.every_n_steps=2"
    with power_failure(step, stage):
        train(tiny_videos, tmp_path, every_two)
    train(tiny_videos, tmp_path, every_two)
    outcome.require_same(finished, tmp_path, "teacher", "student")


@pytest.mark.slow
def test_a_resume_repeats_stochastic_depth(tiny_videos: Path, tmp_path: Path) -> None:
    overrides = ["method.model.drop_path=0.5", "method.checkpoint.every_n_steps=2"]
    train(tiny_videos, tmp_path / "whole", *overrides, method="pixel_teacher")
    with power_failure(4):
        train(tiny_videos, tmp_path / "broken", *overrides, method="pixel_teacher")
    train(tiny_videos, tmp_path / "broken", *overrides, method="pixel_teacher")
    outcome.require_same(tmp_path / "whole", tmp_path / "broken", "teacher")


def test_a_student_does_not_go_on_against_another_teacher(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(finished / "teacher", teacher)
    train(tiny_videos, tmp_path / "run", f"method.teacher.path={teacher}")
    for leftover in ("summary.json", "student/encoder.safetensors"):
        (tmp_path / "run" / leftover).unlink()
    for suffix in ("safetensors", "json"):
        shutil.copy(finished / "student" / f"encoder.{suffix}", teacher)
    with pytest.raises(CheckpointError, match="the teacher has changed since"):
        train(tiny_videos, tmp_path / "run", f"method.teacher.path={teacher}")


def test_a_run_killed_between_its_last_step_and_its_encoder_goes_on(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for leftover in ("summary.json", "student/encoder.safetensors", "student/encoder.json"):
        (tmp_path / leftover).unlink()
    train(tiny_videos, tmp_path)
    for file in ("encoder.safetensors", "compute.json", "metrics.csv"):
        before, after = (root / "student" / file for root in (finished, tmp_path))
        assert before.read_bytes() == after.read_bytes()


def test_the_seed_makes_the_run(finished: Path, tiny_videos: Path, tmp_path: Path) -> None:
    train(tiny_videos, tmp_path, "seed=2")
    cards = [read_card(root / "student" / "encoder.safetensors") for root in (finished, tmp_path)]
    assert cards[0]["fingerprint"] != cards[1]["fingerprint"]


def test_workers_do_not_change_the_result(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    train(tiny_videos, tmp_path, "loader.num_workers=2")
    cards = [read_card(root / "student" / "encoder.safetensors") for root in (finished, tmp_path)]
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"]


def test_a_teacher_of_another_size_skips_stage_one(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    overrides = ["method.encoder=vit_tiny", f"method.teacher.path={finished}/teacher"]
    train(tiny_videos, tmp_path, *overrides)
    assert not (tmp_path / "teacher").exists()
    card = read_card(tmp_path / "student" / "encoder.safetensors")
    teacher = read_card(finished / "teacher" / "encoder.safetensors")
    assert card["shape"]["name"] == "vit_tiny"
    assert card["teacher_fingerprint"] == teacher["fingerprint"]


def test_pixel_teacher_alone_with_tubes_and_a_list_of_inputs(
    tiny_videos: Path, tmp_path: Path
) -> None:
    summary = train(
        f"[{tiny_videos / 'ant'},{tiny_videos / 'bee'}]",
        tmp_path,
        "method/masks=tube",
        "method.masks.ratio=0.75",
        "method.data.weights=[3,1]",
        method="pixel_teacher",
    )
    assert [stage["stage"] for stage in summary["stages"]] == ["teacher"]
    assert not (tmp_path / "student").exists()


def test_training_starts_from_an_initial_checkpoint(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    frozen = ["optimizer.lr=1e-30", "optimizer.weight_decay=0"]
    train(tiny_videos, tmp_path, f"checkpoint={finished}", *frozen, method="pixel_teacher")
    start = load_file(finished / "student" / "encoder.safetensors")
    end = load_file(tmp_path / "teacher" / "encoder.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_a_run_ends_with_a_probe_of_its_encoders_on_a_set(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lists = [f"method.probe_train={tiny_videos}", f"method.probe_test={tiny_videos}"]
    settings = ["method.probe=folder", "method.probe_protocol=knn", *lists]
    with pytest.warns(UserWarning, match="6 of 6 videos of the list test are in the list train"):
        summary = train(tiny_videos, tmp_path / "run", *settings)
    found = summary["probe"]
    assert found["set"] == "folder"
    assert found["chance"] == {"knn": 0.5}
    assert [row["encoder"] for row in found["rows"]] == ["random", "teacher", "student"]
    for row in found["rows"]:
        assert found["reports"][row["encoder"]]["knn"]["accuracy"] == row["knn"]
        assert found["reports"][row["encoder"]]["leaks"] == found["leaks"]
        is_random = row["encoder"] == "random"
        assert found["reports"][row["encoder"]]["random_weights"] == is_random
    assert found["leaks"]["test_in_train"] == found["test_in_pretraining"] == 6
    printed = " ".join(capsys.readouterr().out.split())
    assert "Frozen probes on the test clips of folder" in printed
    assert "test videos that are in the training list, too: 6" in printed


@pytest.mark.parametrize("method", ["salt", "vjepa"])
def test_before_training_is_the_encoder_that_the_run_began_with(
    tiny_videos: Path, tmp_path: Path, method: str
) -> None:
    still = ["optimizer.lr=1e-30", "method.model.init_std=0.1", "seed=5", "trainer.max_steps=1"]
    train(tiny_videos, tmp_path, *still, method=method)
    for stage in {"salt": ["student", "teacher"]}.get(method, ["student"]):
        began, left = (
            open_encoder(f"{prefix}{tmp_path / stage}", seed=9).model.state_dict()
            for prefix in ("random:", "")
        )
        for name, value in began.items():
            torch.testing.assert_close(left[name], value, rtol=0, atol=1e-20)


def test_an_average_of_the_student_changes_nothing_that_is_trained_or_billed(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    train(tiny_videos, tmp_path, "method.ema=0.9")
    trained = load_file(finished / "student" / "encoder.safetensors")
    for name, value in load_file(tmp_path / "student" / "encoder.safetensors").items():
        assert torch.equal(value, trained[name])
    average = load_file(tmp_path / "student" / "ema.safetensors")
    assert not all(torch.equal(value, trained[name]) for name, value in average.items())
    assert not (finished / "student" / "ema.safetensors").exists()
    without, with_it = (
        json.loads((folder / "student" / "compute.json").read_text())
        for folder in (finished, tmp_path)
    )
    assert with_it["flops"] == without["flops"]
    assert with_it["bill"] == without["bill"]
    assert without["evaluation"]["flops"] == 0
    weights = sum(value.numel() for value in average.values())
    assert with_it["evaluation"]["flops"] == 5 * 3 * weights


def test_epochs_limit_the_steps(tiny_videos: Path, tmp_path: Path) -> None:
    # 6 videos in batches of 4: one whole batch an epoch.
    summary = train(tiny_videos, tmp_path, "trainer.max_epochs=3", method="pixel_teacher")
    assert summary["stages"][0]["steps"] == 3


def test_bad_files_are_replaced_and_listed(tiny_videos: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    good = [f"{path} 0" for path in sorted(tiny_videos.rglob("*.mp4"))]
    videos = tmp_path / "videos.csv"
    videos.write_text("\n".join([*good, f"{text} 1", f"{tmp_path / 'missing.mp4'} 1"]) + "\n")
    summary = train(videos, tmp_path / "run", "method.data.max_bad=0.5", method="pixel_teacher")
    skipped = outcome.skipped(tmp_path / "run")
    assert {Path(path).name for path in skipped} == {"text.mp4", "missing.mp4"}
    assert all(skipped.values())
    assert summary["skipped_files"] == 2
    with pytest.raises(
        DataError, match=r"files cannot be read, and method\.data\.max_bad allows 0"
    ):
        train(videos, tmp_path / "strict", method="pixel_teacher")
    assert outcome.skipped(tmp_path / "strict")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["method.clip.size=60"], ConfigError, r"method\.clip\.size=60.*patch_size=16; use 64"),
        (["method.clip.frames=7"], ConfigError, r"method\.clip\.frames=7.*tubelet_size=2"),
        (["method.encoder=vit_tinny"], ConfigError, r"method\.encoder=vit_tinny.*vit_tiny"),
        (["+method.clip.framse=8"], ConfigError, r"method\.clip\.framse.*'frames'"),
        (["method.model.predictor.num_heads=5"], ConfigError, r"method\.model\.predictor.*heads"),
        (["method.loss.distance=l3"], ConfigError, r"method\.loss\.distance='l3'.*smooth_l1"),
        (
            ["method.teacher.path=nowhere"],
            CheckpointError,
            r"method\.teacher\.path: .*nowhere does not exist",
        ),
        (["checkpoint=nowhere"], CheckpointError, r"checkpoint: .*nowhere does not exist"),
        (["input_dir=nowhere"], DataError, r"nowhere does not exist"),
        (["input_dir=[]"], ConfigError, r"input_dir=\[\]: expected a folder"),
        (["method.teacher.path="], CheckpointError, r"method\.teacher\.path: "),
        (["method.data.weights=[1,2]"], ConfigError, r"method\.data\.weights"),
        (["trainer.precision=64"], ConfigError, r"trainer\.precision=64: expected one of"),
        (["+method.masks.short_range.foo=1"], ConfigError, r"method\.masks\.short_range.*'foo'"),
        (["method.transform.scale=0.3"], ConfigError, r"method\.transform\.scale=0\.3"),
        (["method.masks.aspect_ratio=[0.75]"], ConfigError, r"method\.masks\.aspect_ratio"),
        (
            ["method.masks.long_range.scale=0.9", "method.masks.long_range.num_blocks=1"],
            ConfigError,
            r"leave no context on a grid of 4x4",
        ),
        (["method.probe=k40"], ConfigError, r"'k40' is no data set to probe on.*'k400'"),
        (["method.probe=k400"], ConfigError, r"probe\.train: missing.*method\.probe_train"),
        (["method.probe_protocol=svm"], ConfigError, r"method\.probe_protocol=svm: expected one"),
        (["method.masks.long_range.scale=1.5"], ConfigError, r"method\.masks\.long_range"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(
    tiny_videos: Path, tmp_path: Path, overrides: list[str], error: type[SaltError], message: str
) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(error, match=message):
        train(tiny_videos, run_dir, *overrides)
    assert not run_dir.exists()


def test_a_teacher_with_another_patch_grid_is_refused(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    overrides = ["method.model.patch_size=8", f"method.teacher.path={finished}"]
    with pytest.raises(CheckpointError, match=r"patch_size=16, the student 8"):
        train(tiny_videos, tmp_path / "run", *overrides)


def test_a_foreign_checkpoint_is_refused(tiny_videos: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(CheckpointError, match=r"no encoder file of this package"):
        train(tiny_videos, tmp_path / "run", f"checkpoint={foreign}")


def test_a_damaged_resume_checkpoint_is_named(
    finished: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    train(tiny_videos, tmp_path, method="pixel_teacher")
    (tmp_path / "summary.json").unlink()
    (tmp_path / "teacher" / "encoder.safetensors").unlink()
    checkpoint = tmp_path / "teacher" / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be resumed from"):
        train(tiny_videos, tmp_path, method="pixel_teacher")


def test_a_diverged_run_is_an_error_and_keeps_what_was_saved(
    tiny_videos: Path, tmp_path: Path
) -> None:
    given = ["method.checkpoint.every_n_steps=2", "method.max_nonfinite_steps=1"]
    with spoilt({4}), pytest.raises(SaltError, match=r"loss is inf .* at step 4.*optimizer\.lr"):
        train(tiny_videos, tmp_path, *given)
    assert not (tmp_path / "teacher" / "encoder.safetensors").exists()
    assert outcome.saved_step(tmp_path / "teacher") == 2


def test_a_folder_in_use_is_refused(tiny_videos: Path, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another process trains in hydra\.run\.dir="):
            train(tiny_videos, tmp_path, method="pixel_teacher")
    train(tiny_videos, tmp_path, method="pixel_teacher")


def test_a_folder_that_cannot_be_written_to_is_named(tiny_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "teacher").write_text("in the way")
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir: .*teacher cannot be written to"):
        train(tiny_videos, tmp_path, method="pixel_teacher")


def test_a_moved_run_tells_where_it_lies_now(
    finished: Path, tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "moved")
    train(tiny_videos, tmp_path / "moved")
    assert f"load_encoder('{tmp_path / 'moved' / 'student' / 'encoder.safetensors'}')" in (
        capsys.readouterr().out
    )


def test_a_run_goes_on_with_micro_batches_of_another_size(
    tiny_videos: Path, tmp_path: Path
) -> None:
    given = ["method=salt", f"input_dir={tiny_videos}", *SMALL, "method.checkpoint.every_n_steps=2"]
    given += ["trainer.max_steps=5", "method.teacher.max_steps=2", "method.mask_group=3"]
    run(compose(given), tmp_path / "whole")
    with power_failure(3, "student"):
        run(compose(given), tmp_path / "changed")
    # Four clips a step, now in two micro-batches.
    run(compose([*given, "loader.batch_size=2"]), tmp_path / "changed")
    whole, changed = (
        read_metrics(tmp_path / name / "student" / "metrics.csv") for name in ("whole", "changed")
    )
    assert [row["clips"] for row in changed] == [4, 8, 12, 16, 20]
    for one, other in zip(whole, changed, strict=True):
        assert other["flops"] == one["flops"]
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
