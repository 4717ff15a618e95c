"""Runs under a budget of FLOPs, and what an encoder has cost in all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import power_failure
from safetensors.torch import load_file
from small_run import SMALL

from salt_plugin.checkpoints import read_card
from salt_plugin.commands.flops import main as flops_command
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError, SaltError
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run

BUDGET = 2.5e10


def _overrides(videos: Path, method: str, *overrides: str) -> list[str]:
    return [f"method={method}", f"input_dir={videos}", *SMALL, *overrides]


def _train(videos: Path, run_dir: Path, *overrides: str, method: str = "salt") -> dict[str, Any]:
    return run(compose(_overrides(videos, method, *overrides)), run_dir)


@pytest.fixture(scope="module")
def spent(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("budget") / "salt"
    _train(tiny_videos, run_dir, f"compute.budget={BUDGET}", "compute.teacher_share=0.3")
    return run_dir


def test_both_stages_end_at_the_last_step_that_fits(
    spent: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    ledgers = {
        stage: json.loads((spent / stage / "compute.json").read_text())
        for stage in ("teacher", "student")
    }
    limits = {"teacher": round(0.3 * BUDGET)}
    limits["student"] = round(BUDGET) - ledgers["teacher"]["total_flops"]
    # What a step costs follows from its masks alone: a run that is given one more tells.
    more = {stage: ledger["steps"] + 1 for stage, ledger in ledgers.items()}
    counted = [
        f"method.teacher.max_steps={more['teacher']}",
        f"trainer.max_steps={more['student']}",
    ]
    _train(tiny_videos, tmp_path, *counted)
    for stage, ledger in ledgers.items():
        steps, total = ledger["steps"], ledger["total_flops"]
        assert steps > 5
        spent_n = [row["flops"] for row in read_metrics(tmp_path / stage / "metrics.csv")]
        costs = [after - before for before, after in zip([0, *spent_n], spent_n, strict=False)]
        assert len(set(costs)) > 1  # mask lengths vary
        assert len(spent_n) == steps + 1
        assert total == spent_n[-2] <= limits[stage] < spent_n[-1]
        assert read_card(spent / stage / "encoder.safetensors")["training"]["steps"] == steps


def test_schedules_end_where_the_budget_does(spent: Path) -> None:
    for stage in ("teacher", "student"):
        rows = read_metrics(spent / stage / "metrics.csv")
        rates, decays = ([row[name] for row in rows] for name in ("lr", "weight_decay"))
        assert rates[-1] < 0.1 * max(rates)
        assert decays == sorted(decays)
        assert decays[-1] > 0.38
        # The n-th rate follows from what was spent before it, not from n.
        shares = [0.0, *(row["flops"] / rows[-1]["flops"] for row in rows[:-1])]
        falling = [pair for pair in zip(shares, rates, strict=True) if pair[0] > 0.2]
        assert [rate for _, rate in falling] == sorted((r for _, r in falling), reverse=True)


def test_the_bill_of_a_student_includes_its_teacher(spent: Path) -> None:
    bill = json.loads((spent / "summary.json").read_text())["bill"]
    teacher = json.loads((spent / "teacher" / "compute.json").read_text())
    student = json.loads((spent / "student" / "compute.json").read_text())
    assert bill == student["bill"]
    assert bill == read_card(spent / "student" / "encoder.safetensors")["compute"]["bill"]
    assert bill["convention"] == "exact"
    assert bill["parts"] == {
        "teacher_training": teacher["total_flops"],
        "teacher_forward": student["flops"]["teacher_forward"],
        "student": student["flops"]["encoder"],
        "predictor": student["flops"]["predictor"],
    }
    assert 0.85 * BUDGET < bill["total"] == sum(bill["parts"].values()) <= BUDGET


@pytest.mark.parametrize(("stage", "step"), [("teacher", 4), ("student", 5)])
def test_an_interrupted_run_spends_its_budget_as_if_it_had_not_been(
    spent: Path, tiny_videos: Path, tmp_path: Path, stage: str, step: int
) -> None:
    budget = [f"compute.budget={BUDGET}", "compute.teacher_share=0.3"]
    overrides = [*budget, "method.checkpoint.every_n_steps=2"]
    with power_failure(step, stage):
        _train(tiny_videos, tmp_path, *overrides)
    _train(tiny_videos, tmp_path, *overrides)
    outcome.require_same(spent, tmp_path, "teacher", "student")


def test_a_teacher_that_is_given_is_paid_from_the_budget(
    spent: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    teacher = json.loads((spent / "teacher" / "compute.json").read_text())["total_flops"]
    overrides = [f"method.teacher.path={spent}/teacher", f"compute.budget={teacher + 1e10}"]
    summary = _train(tiny_videos, tmp_path / "run", *overrides, "method.encoders_every_n_steps=3")
    assert summary["bill"]["parts"]["teacher_training"] == teacher
    assert teacher + 0.5e10 < summary["bill"]["total"] <= teacher + 1e10
    steps = summary["stages"][-1]["steps"]
    kept = {int(p.stem[5:]) for p in (tmp_path / "run/student/encoders").glob("*.safetensors")}
    assert kept == {*range(3, steps + 1, 3), steps}
    with pytest.raises(ConfigError, match=r"compute\.budget.*method\.teacher\.path alone has cost"):
        _train(tiny_videos, tmp_path / "small", overrides[0], f"compute.budget={teacher}")
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("method", ["salt", "vjepa2"])
def test_a_student_may_start_from_its_teacher_which_is_charged_once(
    spent: Path, tiny_videos: Path, tmp_path: Path, method: str
) -> None:
    teacher = json.loads((spent / "teacher" / "compute.json").read_text())["total_flops"]
    start = [f"checkpoint={spent}/teacher", f"compute.budget={teacher + 3e9}"]
    if method == "salt":
        start.append(f"method.teacher.path={spent}/teacher")
    still = "optimizer.lr=1e-30"  # what it leaves is what it started from
    bill = _train(tiny_videos, tmp_path, *start, still, method=method)["bill"]
    paid = {"teacher_training", "initialisation"} & bill["parts"].keys()
    assert [bill["parts"][part] for part in paid] == [teacher]
    assert teacher < bill["total"] <= teacher + 3e9
    first = load_file(spent / "teacher" / "encoder.safetensors")
    kept = ["encoder"] if method == "salt" else ["encoder", "online"]
    for name in kept:
        found = load_file(tmp_path / "student" / f"{name}.safetensors")
        assert all(torch.equal(found[key], value) for key, value in first.items())


def test_a_teacher_without_a_ledger_has_an_unknown_bill(
    spent: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    shutil.copytree(spent / "teacher", tmp_path / "teacher")
    card_file = tmp_path / "teacher" / "encoder.json"
    card = json.loads(card_file.read_text())
    del card["compute"]
    card_file.write_text(json.dumps(card))
    teacher = f"method.teacher.path={tmp_path}/teacher"
    with pytest.raises(ConfigError, match=r"compute\.budget.*method\.teacher\.path.*no ledger"):
        _train(tiny_videos, tmp_path / "run", teacher, f"compute.budget={BUDGET}")
    summary = _train(tiny_videos, tmp_path / "run", teacher, "trainer.max_steps=2")
    assert summary["bill"]["parts"]["teacher_training"] is None
    assert summary["bill"]["total"] is None
    assert summary["bill"]["parts"]["student"] > 0


def test_students_of_one_teacher_have_a_full_and_a_shared_bill(
    spent: Path, tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"method.teacher.path={spent}/teacher", "trainer.max_steps=2"]
    _train(tiny_videos, tmp_path / "second", *overrides)
    capsys.readouterr()
    runs = [str(spent), str(tmp_path / "second"), str(spent / "teacher")]
    flops_command([*runs, "--json"])
    first, second, teacher = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["run"] for one in (first, second, teacher)] == runs
    assert first["parts"]["teacher_training"] == second["parts"]["teacher_training"]
    assert teacher["total"] == teacher["shared_total"] == first["parts"]["teacher_training"]
    for one in (first, second):
        assert one["students"] == 2
        assert one["total"] == sum(one["parts"].values())
        assert one["shared_total"] == one["total"] - teacher["total"] // 2
    flops_command(runs)
    assert "shared" in capsys.readouterr().out


def test_what_training_started_from_is_on_the_bill(
    spent: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    earlier = json.loads((spent / "summary.json").read_text())["bill"]["total"]
    start = f"checkpoint={spent}/student"
    steps = "trainer.max_steps=2"
    summary = _train(tiny_videos, tmp_path, start, steps, method="pixel_teacher")
    assert summary["bill"]["parts"]["initialisation"] == earlier
    own = json.loads((tmp_path / "teacher" / "compute.json").read_text())["total_flops"]
    assert summary["bill"]["total"] == earlier + own


def test_recomputed_activations_are_spent_but_not_the_models(
    tiny_videos: Path, tmp_path: Path
) -> None:
    ledgers = []
    for switch in ("false", "true"):
        run_dir = tmp_path / switch
        overrides = ["trainer.max_steps=2", f"method.model.activation_checkpointing={switch}"]
        _train(tiny_videos, run_dir, *overrides, method="pixel_teacher")
        ledgers.append(json.loads((run_dir / "teacher" / "compute.json").read_text()))
    plain, recomputing = ledgers
    assert plain["flops"] == recomputing["flops"]
    assert plain["recomputed_flops"] == 0
    assert plain["spent_flops"] == plain["total_flops"] == recomputing["total_flops"]
    # Less than a forward pass more beside one forward and two backward.
    extra = recomputing["spent_flops"] / recomputing["total_flops"]
    assert 1.1 < extra < 4 / 3


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("salt", ["compute.budget=1e6"], r"compute\.budget=1e\+06 leaves .* for the teacher"),
        (
            "salt",
            ["compute.budget=2e9", "compute.teacher_share=0.99"],
            r"compute\.budget=2e\+09 leaves .* for the student, .*; give at least",
        ),
        ("pixel_teacher", ["compute.budget=1e6"], r"compute\.budget=1e\+06.*first step takes"),
        ("salt", ["compute.budget=-1"], r"compute\.budget=-1.*more than 0"),
        ("salt", ["compute.teacher_share=1.0"], r"compute\.teacher_share=1\.0: expected a share"),
        ("salt", ["+compute.budgets=1"], r"compute\.budgets: unknown key.*budget"),
        ("salt", ["compute.budget=1e12", "trainer.max_steps=5"], r"trainer\.max_steps=5: expected"),
        ("salt", ["compute.budget=1e12", "trainer.max_epochs=5"], r"trainer\.max_epochs=5: exp"),
    ],
)
def test_budgets_that_cannot_work_are_named_before_anything_is_written(
    tiny_videos: Path, tmp_path: Path, method: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(SaltError, match=message):
        _train(tiny_videos, tmp_path / "run", *overrides, method=method)
    assert not (tmp_path / "run").exists()
