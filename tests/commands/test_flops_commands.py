from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from salt_plugin.commands import flops, plan
from salt_plugin.commands.plan_options import teacher_share
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError

SALT_GIANT = [
    "--method=salt",
    "--encoder=vit_giant",
    "--teacher-encoder=vit_large",
    "--steps=160000",
    "--teacher-steps=80000",
    "--batch-size=3072",
    "--resolution=224",
]


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_flops_prints_total_parts_and_convention(capsys: pytest.CaptureFixture[str]) -> None:
    flops.main([*SALT_GIANT, "--convention", "paper", "--json"])
    paper = _json(capsys)
    assert set(paper) == {"total", "parts", "convention"}
    assert paper["convention"] == "paper"
    assert paper["total"] == sum(paper["parts"].values())
    assert paper["total"] == pytest.approx(1.850e21, rel=1e-3)
    names = ["teacher_training", "teacher_forward", "student", "predictor"]
    assert list(paper["parts"]) == names
    flops.main([*SALT_GIANT, "--json"])
    exact = _json(capsys)
    assert exact["convention"] == "exact"
    assert list(exact["parts"]) == names
    # Attention's quadratic term, and more context than a tenth a set.
    assert exact["total"] > 1.2 * paper["total"]


def test_a_larger_group_leaves_fewer_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    totals = []
    for size in ("1", "24", "96"):
        flops.main([*SALT_GIANT, "--mask-group", size, "--json"])
        totals.append(_json(capsys)["total"])
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("vjepa", ["teacher_forward", "student", "predictor", "ema"]),
        ("vjepa2", ["teacher_forward", "student", "predictor", "ema"]),
        ("videomae", ["student", "decoder"]),
        ("pixel_teacher", ["teacher_training"]),
    ],
)
def test_bills_of_other_methods(
    method: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flops.main(["--method", method, "--encoder", "vit_base", "--steps", "10", "--json"])
    assert list(_json(capsys)["parts"]) == parts
    flops.main(["--method", method, "--encoder", "vit_base", "--steps", "10"])
    assert "exact convention" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_holds_both_conventions(capsys: pytest.CaptureFixture[str]) -> None:
    flops.main(["--table", "--json"])
    rows = _json(capsys)
    assert len(rows) == 12
    assert all(row["paper"] == pytest.approx(row["printed"], abs=0.05e21) for row in rows)
    flops.main(["--table"])
    shown = capsys.readouterr().out
    assert "paper" in shown
    assert "exact" in shown
    assert shown.count("256 !") == sum(row["unequal"] for row in rows) == 6
    assert "…" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--encoder is required"),
        (["--encoder", "vit_base"], "--steps is required"),
        (["--encoder", "vit_base", "--steps", "1"], "--teacher-steps is required"),
        (["--encoder", "vit_base", "--steps", "-1", "--teacher-steps", "1"], "expected 0 or more"),
        (
            ["--method", "vjepa", "--encoder", "vit_base", "--steps", "1", "--teacher-steps", "1"],
            "vjepa trains no teacher first",
        ),
        (["--table", "--resolution", "256"], "--table is of the paper's own runs"),
    ],
)
def test_wrong_use_of_flops(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        flops.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolution", "225"], r"method\.clip\.size=225: not divisible by .*=16; use 224"),
        (["--frames", "15"], r"method\.clip\.frames=15: not divisible by .*=2; use 16"),
        (["--mask-group", "0"], r"method\.mask_group=0: expected at least 1"),
        (["--batch-size", "0"], r"method\.global_batch_size=0: expected at least 1"),
        (["--teacher-encoder", "vit_larg"], r"method\.teacher\.encoder=vit_larg: no such size"),
    ],
)
def test_values_that_cannot_work(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.main(["--budget", "1e21", "--encoder", "vit_base", *arguments])


def test_plan_tells_steps_of_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--budget", "1e21", "--encoder", "vit_large", "--flops-per-second", "5e16"]
    plan.main([*given, "--json"])
    found = _json(capsys)
    assert (found["resolution"], found["convention"]) == (224, "exact")
    plans = {one["method"]: one for one in found["plans"]}
    assert list(plans) == ["salt", "vjepa2", "videomae", "levjepa", "pixel_teacher"]
    assert plans["salt"]["teacher_steps"] > 0
    assert plans["salt"]["teacher_share"] == pytest.approx(0.1, abs=1e-3)
    for one in plans.values():
        assert 0.999e21 < one["total"] <= 1e21
        assert one["seconds"] == pytest.approx(2e4, rel=1e-3)
    plan.main(given)
    shown = capsys.readouterr().out
    assert f"{plans['salt']['steps']:,}" in shown
    assert "5 h 33 min" in shown
    assert "…" not in shown


@pytest.mark.slow
def test_plan_without_an_encoder_is_a_table_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    plan.main(["--budget", "1e16", "--teacher-encoder", "vit_base", "--json"])
    found = _json(capsys)
    small = " ".join(found["too_small"])
    assert "salt with vit_gigantic: compute.budget=1e+16 leaves" in small
    assert {one["encoder"] for one in found["plans"]} >= {"vit_nano", "vit_large"}
    assert len(found["plans"]) + len(found["too_small"]) == 8 * 5
    for arguments in (["--budget", "1e3"], ["--budget", "1e16", "--encoder", "vit_giant"]):
        with pytest.raises(ConfigError, match="give at least"):
            plan.main(arguments)


@pytest.mark.slow
def test_neither_loads_torch() -> None:
    code = (
        "import sys; from salt_plugin.commands import flops, plan;"
        "flops.main(['--table']); plan.main(['--budget', '1e21']);"
        "sys.exit(sorted({'torch', 'fvcore', 'lightly'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True)


def test_what_is_not_given_is_as_the_configuration_has_it() -> None:
    cfg = compose(["method=salt", "input_dir=VIDEOS"])
    parser = plan._parser()
    expected = {
        "mask_group": cfg.method.mask_group,
        "resolution": cfg.method.clip.size,
        "frames": cfg.method.clip.frames,
    }
    assert {key: parser.get_default(key) for key in expected} == expected
    assert teacher_share() == cfg.compute.teacher_share


def test_the_plan_of_a_run_tells_tokens_memory_storage_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo = ["preset=demo", "method.encoders_every_n_steps=1250", "--flops-per-second", "1e12"]
    plan.main([*demo, "--json"])
    found = _json(capsys)
    teacher, student = found["stages"]
    for one in (teacher, student):
        memory = dict(one["memory"])
        assert memory.pop("peak") == sum(memory.values())
        assert memory["optimizer"] == 2 * memory["weights"]
        # Clips of a step, two mask sets, and at most all 64 tokens of a clip in each.
        assert 0.5 < one["tokens"] / (one["steps"] * 16 * 2 * 64) <= 1
        assert one["seconds"] == one["flops"] / 1e12
    encoder = 4 * 842_624
    kept, checkpoint = (1 + 2) * encoder, 3 * student["memory"]["weights"]
    predictor = student["memory"]["weights"] - encoder
    assert student["storage"] == 2 * checkpoint + kept + predictor
    plan.main(demo)
    shown = capsys.readouterr().out
    assert "memory of the student: weights" in shown
    assert "…" not in shown
