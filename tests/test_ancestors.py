"""Runs that come from other runs: what they take, what it has cost, and what their cards say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import each_step, power_failure
from small_run import TINY

from salt_plugin.checkpoints import read_card
from salt_plugin.config import compose, load_config
from salt_plugin.errors import CheckpointError, ConfigError, SaltError
from salt_plugin.methods import Recipe
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.training.plan import plan_configured

KEPT = ["method.checkpoint.keep_every=2", "trainer.max_steps=5"]
COOL_DOWN = [
    "method.clip.frames=8",
    "method.optim.warmup_steps=0",
    "method.optim.final_lr=0.1",
    "method.optim.cooldown_share=0",
    "method.optim.betas=[0.8,0.9]",
    "optimizer.lr=1e-3",
    "trainer.max_steps=3",
]


def train(videos: Path, run_dir: Path, *overrides: str, method: str = "vjepa2") -> dict[str, Any]:
    return run(compose([f"method={method}", f"input_dir={videos}", *TINY, *overrides]), run_dir)


def card(run_dir: Path, stage: str = "student") -> dict[str, Any]:
    return read_card(run_dir / stage / "encoder.safetensors")


def begun(
    videos: Path, run_dir: Path, *overrides: str, stage: str = "student", **method: str
) -> dict[str, Any]:
    """Returns the card in the checkpoint of a run that dies in its second step."""
    with power_failure(2):
        train(videos, run_dir, *overrides, "method.checkpoint.every_n_steps=1", **method)
    found: dict[str, Any] = outcome.checkpoint(run_dir / stage)["card"]
    return found


@pytest.fixture(scope="module")
def vjepa2(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "vjepa2"
    train(tiny_videos, run_dir, *KEPT)
    return run_dir


@pytest.fixture(scope="module")
def salt(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "salt"
    train(tiny_videos, run_dir, *KEPT, "method.teacher.max_steps=2", method="salt")
    return run_dir


@pytest.fixture(scope="module")
def continued(vjepa2: Path, tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "continued"
    train(tiny_videos, run_dir, *COOL_DOWN, f"method.continue_from={vjepa2}")
    return run_dir


@pytest.mark.parametrize("kept", [None, "step-2.ckpt"])
def test_it_begins_with_all_that_the_checkpoint_holds(
    vjepa2: Path, tiny_videos: Path, tmp_path: Path, kept: str | None
) -> None:
    given = vjepa2 if kept is None else vjepa2 / "student" / "checkpoints" / kept
    with power_failure(1):
        train(tiny_videos, tmp_path, *COOL_DOWN, f"method.continue_from={given}")
    before = torch.load(vjepa2 / "student/checkpoints" / (kept or "last.ckpt"), weights_only=True)
    now = outcome.checkpoint(tmp_path / "student")
    assert before["global_step"] == (5 if kept is None else 2)
    assert now["global_step"] == now["ledger"]["clips"] == 0
    assert any(name.startswith("teacher.") for name in now["state_dict"])  # the moving average
    assert any(name.startswith("predictor.") for name in now["state_dict"])
    for one, other in (
        (before["state_dict"], now["state_dict"]),
        (before["optimizer"]["state"], now["optimizer"]["state"]),
    ):
        assert outcome.equal(one, other)
    assert {tuple(group["betas"]) for group in now["optimizer"]["param_groups"]} == {(0.8, 0.9)}


def test_schedules_count_from_its_own_first_step_and_the_optimiser_goes_on(
    continued: Path,
) -> None:
    state = outcome.checkpoint(continued / "student")["optimizer"]["state"]
    assert {float(one["step"]) for one in state.values()} == {5 + 3}
    rows = read_metrics(continued / "student" / "metrics.csv")
    recipe = Recipe(total_steps=3, lr=1e-3, warmup_steps=0, final_lr=0.1)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx([recipe.lr_at(k) for k in range(3)])
    assert rows[0]["lr"] == 1e-3


def test_its_bill_and_its_card_say_from_where(vjepa2: Path, continued: Path) -> None:
    before, now = card(vjepa2), card(continued)
    bill = now["compute"]["bill"]
    assert bill["parts"]["continued"] == before["compute"]["bill"]["total"]
    assert bill["total"] == before["compute"]["bill"]["total"] + now["compute"]["total_flops"]
    assert now["training"]["steps"] == 3
    assert now["training"]["steps_before"] == 5
    origin = now["lineage"]["continued"]
    assert origin["path"] == str(vjepa2 / "student" / "checkpoints" / "last.ckpt")
    assert (origin["method"], origin["encoder"], origin["steps"]) == ("vjepa2", "vit_nano", 5)
    assert origin["flops"] == before["compute"]["bill"]["total"]
    summary = json.loads((continued / "summary.json").read_text())
    assert summary["bill"] == bill


def test_a_continuation_is_continued(continued: Path, tiny_videos: Path, tmp_path: Path) -> None:
    now, before = begun(tiny_videos, tmp_path, f"method.continue_from={continued}"), card(continued)
    assert now["training"]["steps_before"] == 5 + 3
    assert now["lineage"]["continued"]["lineage"] == before["lineage"]
    assert now["compute"]["bill"]["parts"]["continued"] == before["compute"]["bill"]["total"]


def test_its_clips_are_not_those_of_the_first_run(
    vjepa2: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    for name, given in (("one", []), ("two", [f"method.continue_from={vjepa2}"])):
        paths: list[str] = []
        with each_step(lambda now, paths=paths: paths.extend(now.batch.paths)), power_failure(6):
            train(tiny_videos, tmp_path / name, *given, "trainer.max_steps=6")
        seen.append(paths)
    assert seen[0] != seen[1]


def test_killed_and_resumed_it_ends_the_same_though_the_other_run_is_gone(
    vjepa2: Path, continued: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(vjepa2, other)
    given = [*COOL_DOWN, f"method.continue_from={other}", "method.checkpoint.every_n_steps=2"]
    for step in (1, 2, 3):
        with power_failure(step):
            train(tiny_videos, tmp_path / "run", *given)
        if other.exists():
            shutil.rmtree(other)
    train(tiny_videos, tmp_path / "run", *given)
    one, two = (outcome.checkpoint(root / "student") for root in (continued, tmp_path / "run"))
    for held in (one, two):
        del held["card"]["lineage"]["continued"]["path"]
    assert outcome.equal(one, two)
    outcome.require_same(continued, tmp_path / "run", "student")


def test_a_student_goes_on_with_its_teacher_whose_training_is_paid_once(
    salt: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    given = [f"method.continue_from={salt}", "method.clip.frames=8"]
    before, now = card(salt), begun(tiny_videos, tmp_path / "run", *given, method="salt")
    assert not (tmp_path / "run" / "teacher").exists()
    assert now["teacher_fingerprint"] == before["teacher_fingerprint"]
    assert now["lineage"]["teacher"] == before["lineage"]["teacher"]
    bill = before["compute"]["bill"]
    parts = now["compute"]["bill"]["parts"]
    assert parts["teacher_training"] == bill["parts"]["teacher_training"]
    assert parts["continued"] == bill["total"] - bill["parts"]["teacher_training"]
    other = [*given, f"method.teacher.path={salt}/student"]
    with pytest.raises(CheckpointError, match=r"method\.teacher\.path=.* is not the teacher that"):
        train(tiny_videos, tmp_path / "other", *other, method="salt")
    assert not (tmp_path / "other").exists()


def test_the_pixel_teacher_of_a_salt_run_is_continued_alone(
    salt: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    given = f"method.continue_from={salt}/teacher"
    now = begun(tiny_videos, tmp_path, given, stage="teacher", method="pixel_teacher")["compute"]
    before = card(salt, "teacher")["compute"]["bill"]["total"]
    parts = {"continued": before, "teacher_training": now["total_flops"]}
    assert now["bill"]["parts"] == parts


def test_a_budget_and_a_plan_cover_what_was_spent_before(
    vjepa2: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    spent = card(vjepa2)["compute"]["bill"]["total"]
    given = [f"method.continue_from={vjepa2}", "compute.budget="]
    with pytest.raises(ConfigError, match=r"method\.continue_from alone has cost"):
        train(tiny_videos, tmp_path, given[0], f"compute.budget={spent}")
    config = load_config(compose(["method=vjepa2", *TINY, given[0], f"compute.budget={2 * spent}"]))
    config.method.global_batch_size = 2
    plan = plan_configured(config)
    assert plan.inherited == {"continued": spent}
    assert 0.7 * spent < sum(plan.flops().values()) <= spent


@pytest.mark.parametrize(
    ("overrides", "method", "message"),
    [
        (["method.encoder=vit_tiny"], "vjepa2", r"method\.encoder was 'vit_nano' and is now 'vit_"),
        (["method.model.patch_size=8"], "vjepa2", r"method\.model\.patch_size was 16 and is now 8"),
        (["method.model.predictor.depth=2"], "vjepa2", r"predictor\.depth was 1 and is now 2"),
        (
            ["method/masks=videomae", "method.masks.ratio=0.5"],
            "vjepa2",
            r"method\.masks was '2 mask sets' and is now '1",
        ),
        ([], "pixel_teacher", r"method\.name was 'vjepa2' and is now 'pixel_teacher'"),
        (["checkpoint={run}"], "vjepa2", r"expected null beside checkpoint="),
        ([], "finetune", r"expected null with method\.name=finetune"),
    ],
)
def test_what_has_to_agree_is_one_error_that_names_the_key(
    vjepa2: Path, tiny_videos: Path, tmp_path: Path, overrides: list[str], method: str, message: str
) -> None:
    given = [one.format(run=vjepa2) for one in overrides]
    with pytest.raises(SaltError, match=rf"^method\.continue_from=.*{message}"):
        train(tiny_videos, tmp_path, *given, f"method.continue_from={vjepa2}", method=method)
    assert not list(tmp_path.iterdir())


def test_what_is_no_checkpoint_is_refused(vjepa2: Path, tiny_videos: Path, tmp_path: Path) -> None:
    early = outcome.checkpoint(vjepa2 / "student")
    del early["card"]
    torch.save(early, tmp_path / "early.ckpt")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("early.ckpt", r"early\.ckpt does not say what it is of \('card' is missing\)"),
        ("empty", r"empty has no checkpoint to continue"),
        ("nowhere", r"nowhere has no checkpoint to continue"),
    ):
        given = f"method.continue_from={tmp_path / name}"
        with pytest.raises(CheckpointError, match=rf"^method\.continue_from: .*{message}"):
            train(tiny_videos, tmp_path / "run", given)


def test_a_third_generation_learns_from_the_student_and_its_bill_has_all_ancestors(
    salt: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    third = begun(tiny_videos, tmp_path / "third", f"method.teacher.path={salt}", method="salt")
    second = card(salt)
    assert third["teacher_fingerprint"] == second["fingerprint"]
    bill = third["compute"]["bill"]
    assert bill["parts"]["teacher_training"] == second["compute"]["bill"]["total"]
    assert second["compute"]["bill"]["total"] > card(salt, "teacher")["compute"]["total_flops"]
    student = third["lineage"]["teacher"]
    assert (student["method"], student["stage"], student["steps"]) == ("salt", "student", 5)
    assert student["fingerprint"] == second["fingerprint"]
    teacher = student["lineage"]["teacher"]
    assert (teacher["stage"], teacher["steps"], teacher["lineage"]) == ("teacher", 2, {})
    assert teacher["fingerprint"] == second["teacher_fingerprint"]

    unfinished = tmp_path / "unfinished"
    shutil.copytree(salt, unfinished)
    (unfinished / "student" / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"is a run that is not finished.*unfinished/teacher"):
        train(tiny_videos, tmp_path / "no", f"method.teacher.path={unfinished}", method="salt")


def test_an_encoder_to_start_from_is_an_ancestor(
    salt: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    now = begun(tiny_videos, tmp_path, f"checkpoint={salt}")
    start = now["lineage"]["checkpoint"]
    assert start["fingerprint"] == card(salt)["fingerprint"]
    assert start["flops"] == now["compute"]["bill"]["parts"]["initialisation"]
