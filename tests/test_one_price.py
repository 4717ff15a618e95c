"""`salt plan`, the dry run of `salt launch` and a run name the same steps and the same price."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_run import TINY

from salt_plugin.cli import main
from salt_plugin.config import RunConfig, compose, load_config
from salt_plugin.config.planning import compose_alone
from salt_plugin.report.units import flops
from salt_plugin.train import run
from salt_plugin.training.plan import BudgetTooSmallError, plan_configured

SHORT = ["method.teacher.max_steps=5", "trainer.max_steps=8", "method.probe=null"]
DEMO = ["preset=demo", "method.data.demo.train=60", "method.data.demo.test=20", *SHORT]


class Said:
    """Calls commands in this process and returns what they print."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        self.capsys, self.monkeypatch, self.folder = capsys, monkeypatch, folder
        monkeypatch.chdir(folder)

    def salt(self, *arguments: str) -> str:
        self.monkeypatch.setattr("sys.argv", ["salt", *arguments])
        main()
        return self.capsys.readouterr().out

    def plan(self, *arguments: str) -> Any:
        return json.loads(self.salt("plan", *arguments, "--json").splitlines()[-1])

    def dry_run(self, *overrides: str, tasks: int = 1) -> tuple[list[int], str]:
        """Returns steps by stage and FLOPs that the dry run of a study of one run tells."""
        stages = {"train": {"method": "salt", "overrides": list(overrides)}}
        Path("one.yaml").write_text(json.dumps({"name": "one", "stages": stages}))
        profile = {"kind": "slurm", "tasks_per_node": tasks}
        Path("here.yaml").write_text(json.dumps(profile))
        told = self.salt("launch", "one.yaml", "cluster=here.yaml", "--dry-run")
        found = re.search(r"([\d,]+(?: \+ [\d,]+)*) +([\d.]+ \w+) ", told)
        assert found, told
        return [int(number) for number in found[1].replace(",", "").split(" + ")], found[2]

    def run(self, run_dir: Path, *overrides: str) -> tuple[list[int], float]:
        """Trains; returns the steps and the price in all that it names at its start."""
        run(compose(["method=salt", *overrides]), run_dir)
        (line,) = (
            line for line in self.capsys.readouterr().err.splitlines() if line.startswith("plan ")
        )
        steps = [int(one.replace(",", "")) for one in re.findall(r"([\d,]+) steps", line)]
        (total,) = re.findall(r"([\d.e+]+)(?: in all| FLOPs)$", line)
        return steps, float(total)


@pytest.fixture
def said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Said:
    return Said(capsys, monkeypatch, tmp_path)


def _spent(run_dir: Path, *stages: str) -> tuple[list[int], int]:
    ledgers = [json.loads((run_dir / stage / "compute.json").read_text()) for stage in stages]
    return [one["steps"] for one in ledgers], sum(one["total_flops"] for one in ledgers)


def _require_one_price(said: Said, run_dir: Path, overrides: list[str], *stages: str) -> None:
    plan = said.plan(*overrides)
    steps = [stage["steps"] for stage in plan["stages"]]
    assert said.dry_run(*overrides) == (steps, flops(plan["total"]))
    named, price = said.run(run_dir, *overrides)
    assert named == steps
    assert price == pytest.approx(plan["total"], rel=1e-3)
    # So short a run is priced step by step.
    assert _spent(run_dir, *stages) == (steps, plan["total"])
    assert said.plan(str(run_dir)) == plan


def test_the_demo_has_one_price(said: Said, tmp_path: Path) -> None:
    _require_one_price(said, tmp_path / "run", DEMO, "teacher", "student")


def test_a_budget_has_one_number_of_steps(said: Said, tmp_path: Path) -> None:
    overrides = [
        "preset=demo",
        "method.data.demo.train=60",
        "method.data.demo.test=20",
        "compute.budget=9e10",
        "compute.teacher_share=0.3",
        "method.probe=null",
    ]
    plan = said.plan(*overrides)
    steps = [stage["steps"] for stage in plan["stages"]]
    assert said.dry_run(*overrides)[0] == steps
    named, _ = said.run(tmp_path / "run", *overrides)
    done, spent = _spent(tmp_path / "run", "teacher", "student")
    assert min(steps) > 4
    assert named == steps == done
    assert plan["total"] == spent <= 9e10


def test_a_named_teacher_of_another_size_is_priced_by_its_own(
    said: Said, tmp_path: Path, tiny_videos: Path
) -> None:
    base = [*TINY, f"input_dir={tiny_videos}", "method.probe=null"]
    first = [*base, "method.encoder=vit_tiny", "trainer.max_steps=2"]
    run(compose(["method=pixel_teacher", *first]), tmp_path / "first")
    named = [*base, "trainer.max_steps=3", f"method.teacher.path={tmp_path / 'first'}"]
    _require_one_price(said, tmp_path / "run", named, "student")
    plan = said.plan(*named)
    of_own_size = said.plan(*named[:-1], "method.teacher.max_steps=1")
    assert plan["parts"]["teacher_forward"] > 3 * of_own_size["parts"]["teacher_forward"]
    assert plan["inherited"]["teacher_training"] > 0


def test_two_devices_have_twice_the_clips(said: Said) -> None:
    two = said.plan("--devices", "2", *DEMO)
    assert two["clips_a_step"] == 32
    one = said.plan(*DEMO, "loader.batch_size=32")
    assert (two.pop("devices"), one.pop("devices")) == (2, 1)
    for stage in (*two["stages"], *one["stages"]):
        del stage["memory"]  # of a device
    assert two == one
    assert said.dry_run(*DEMO, tasks=2) == ([5, 8], flops(two["total"]))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_what_a_budget_needs_at_least_is_enough(said: Said, share: float) -> None:
    def least(budget: float) -> float:
        given = [*DEMO[:3], f"compute.budget={budget}", f"compute.teacher_share={share}"]
        with pytest.raises(BudgetTooSmallError, match="give at least") as refused:
            plan_configured(_config(given))
        return float(str(refused.value).split()[-1])

    def stages(budget: float) -> list[int]:
        given = [*DEMO[:3], f"compute.budget={budget}", f"compute.teacher_share={share}"]
        return [stage.steps for stage in plan_configured(_config(given)).stages]

    needed = least(1)
    try:
        found = stages(needed)
    except BudgetTooSmallError as refused:  # the teacher's step is paid, the student's is not
        needed = float(str(refused).split()[-1])
        found = stages(needed)
    assert min(found) >= 1


def _config(overrides: list[str]) -> RunConfig:
    config = load_config(compose_alone(overrides), foreign=False)
    config.method.global_batch_size = 16
    return config


def test_students_of_a_whole_run_learn_from_its_student(said: Said) -> None:
    parent = ["preset=demo", "method.encoder=vit_tiny", "method.teacher.encoder=vit_nano", *SHORT]
    child = ["preset=demo", "method.teacher.path={first}", "trainer.max_steps=8"]
    stages = {
        "first": {"method": "salt", "overrides": parent},
        "second": {"method": "salt", "needs": "first", "overrides": child},
    }
    Path("two.yaml").write_text(json.dumps({"name": "two", "stages": stages}))
    told = said.salt("launch", "two.yaml", "--dry-run")
    alone = said.plan("preset=demo", "method.teacher.encoder=vit_tiny", *SHORT)
    student = next(stage for stage in alone["stages"] if stage["stage"] == "student")
    (line,) = (line for line in told.splitlines() if " second " in line)
    assert flops(student["flops"]) in line


def test_a_misspelt_key_or_group_is_one_line(said: Said, tmp_path: Path) -> None:
    for wrong in ("optimizer.lrr=1", "method=saltt", "preset=nope"):
        with pytest.raises(SystemExit, match="1"):
            said.salt("plan", "method=salt" if "=saltt" not in wrong else "seed=1", wrong)
        assert said.capsys.readouterr().err.startswith("error: ")
    folder = tmp_path / "seed=1"
    folder.mkdir()
    with pytest.raises(SystemExit, match="1"):
        said.salt("plan", str(folder))
    assert "is no run directory" in said.capsys.readouterr().err


def test_epochs_are_those_of_the_videos_there_are(said: Said, tiny_videos: Path) -> None:
    epochs = ["method=pixel_teacher", f"input_dir={tiny_videos}", *TINY, "trainer.max_steps=-1"]
    plan = said.plan(*epochs, "trainer.max_epochs=3", "method.global_batch_size=4")
    assert [stage["steps"] for stage in plan["stages"]] == [3]  # of six videos, two are dropped
    rest = ["loader.drop_last=false", "trainer.max_epochs=3", "method.global_batch_size=4"]
    assert [stage["steps"] for stage in said.plan(*epochs, *rest)["stages"]] == [6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the overrides of a training command, a run directory, or --budget"),
        (["preset=demo", "--budget", "1e20"], "for one run give compute.budget=FLOPS"),
        (["preset=demo", "--mask-group", "3"], "--mask-group: of --budget"),
        (["--budget", "nan"], "expected more than 0"),
        (["preset=demo", "--devices", "0"], "expected at least 1"),
    ],
)
def test_wrong_use_of_plan(
    said: Said, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        said.salt("plan", *arguments)
    assert message in capsys.readouterr().err
