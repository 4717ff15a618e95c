"""Comparisons as they are configured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from salt_plugin.conf_folder import conf_folder
from salt_plugin.config import load_config
from salt_plugin.config.compare import compare_config, evaluations
from salt_plugin.config.planning import compose_alone
from salt_plugin.config.suggest import shipped
from salt_plugin.data import DemoSpec
from salt_plugin.errors import ConfigError
from salt_plugin.studies.cells import all_cells, base_of, baselines, train_overrides
from salt_plugin.studies.comparison import CELLS, common_settings, differences, study_of
from salt_plugin.studies.costs import composed_config
from salt_plugin.studies.elements import run_dir_override

GOOD = ["methods=[salt]", "encoders=[vit_nano]", "budgets=[1e13]", "probe=[{data: demo}]"]


@pytest.fixture
def empty(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text("seeds: [1]\n")
    return str(file)


@pytest.mark.parametrize("name", ["demo", "demo_grid8", "demo_grid8_tuning", "demo_small", "paper"])
def test_named_comparisons(name: str) -> None:
    assert name in shipped(conf_folder() / "compare")
    if not (conf_folder() / "method" / "vjepa.yaml").is_file():
        pytest.skip("method=vjepa is not there")
    config = compare_config(name)
    assert all_cells(config)


@pytest.mark.parametrize("name", ["demo", "demo_grid8", "demo_grid8_tuning"])
def test_arms_of_a_named_comparison_compare(name: str, tmp_path: Path) -> None:
    config = compare_config(name, ["seeds=[11]"])
    _, elements = study_of(config, name, tmp_path)
    configs = {one.name: composed_config(one) for one in elements if one.stage == CELLS}
    common_settings(configs)
    assert "method.momentum.start" in differences(configs, config)


def test_the_sets_of_demo_grid8_have_scans_of_their_own() -> None:
    config = compare_config("demo_grid8")
    run = DemoSpec(**load_config(compose_alone(config.overrides)).method.data.demo)
    assert run.train >= 20_000
    found = evaluations(config)
    for task, kind in (("motion", "direction"), ("appearance", "digit")):
        assert found[task].test == f"demo:test_{kind}.csv"
        assert found[f"{task}_val"].test == f"demo:val_{kind}.csv"
    for one in found.values():
        spec = DemoSpec(**one.demo)
        assert one.train in ("demo:train_direction.csv", "demo:train_digit.csv")
        assert one.val is None
        # Equal but for their numbers of clips, and each with scans kept for validation.
        assert replace(spec, train=run.train, val=run.val, test=run.test) == run
        assert min(spec.val, run.val) > 0
        assert spec.train <= run.train


def test_a_run_for_each_method_encoder_budget_seed_and_share(empty: str) -> None:
    changes = [*GOOD, "methods=[salt,pixel_teacher]", "budgets=[1e13,3e13]", "seeds=[1,2]"]
    config = compare_config(empty, [*changes, "teacher_shares=[0.1,0.3]"])
    cells = all_cells(config)
    assert [cell.name for cell in cells[:3]] == [
        "salt-vit_nano-1e13-s1-t0.1",
        "salt-vit_nano-1e13-s1-t0.3",
        "pixel_teacher-vit_nano-1e13-s1",
    ]
    assert len({cell.name for cell in cells}) == len(cells) == 12
    assert [cell.seed for cell in cells] == [1] * 6 + [2] * 6
    assert [cell.name for cell in baselines(config)] == ["random-vit_nano-s1", "random-vit_nano-s2"]
    overrides = train_overrides(cells[1], config)
    assert "compute.budget=10000000000000.0" in overrides
    assert "compute.teacher_share=0.3" in overrides
    assert not any("teacher_share" in one for one in train_overrides(cells[2], config))


WARM = "['method.teacher.path={salt}/teacher', 'checkpoint={salt}/teacher']"


def test_arms_are_methods_with_overrides_and_budgets_of_their_own(empty: str) -> None:
    arms = f"vjepa: {{method: vjepa, budgets: [3e13]}}, warm: {{method: vjepa2, overrides: {WARM}}}"
    changes = ["methods=[salt,vjepa2]", "budgets=[1e13,3e13]", "seeds=[1,2]"]
    config = compare_config(
        empty, [*GOOD, *changes, f"arms={{{arms}}}", "method_overrides={vjepa2: [optimizer.lr=1]}"]
    )
    cells = all_cells(config)
    assert [cell.name for cell in cells[:7]] == [
        "salt-vit_nano-1e13-s1-t0.1",
        "vjepa2-vit_nano-1e13-s1",
        "warm-vit_nano-1e13-s1-t0.1",
        "salt-vit_nano-3e13-s1-t0.1",
        "vjepa2-vit_nano-3e13-s1",
        "vjepa-vit_nano-3e13-s1",
        "warm-vit_nano-3e13-s1-t0.1",
    ]
    assert [cell.seed for cell in cells] == [1] * 7 + [2] * 7
    bases = [base_of(cell, config) for cell in cells]
    assert bases[2] == cells[0]._replace(method="vjepa2")
    assert bases[:2] == [None, None]
    assert {"method=vjepa2", "optimizer.lr=1"} < {*train_overrides(cells[2], config)}


def test_trials_are_runs_of_every_arm_one_trial_after_the_other(empty: str) -> None:
    trials = (
        "trials={salt: [[optimizer.lr=1e-3, compute.teacher_share=0.2], [optimizer.lr=2e-3]],"
        " vjepa2: [[optimizer.lr=1e-3], [method.momentum.start=0.99]]}"
    )
    config = compare_config(
        empty, [*GOOD, "methods=[salt,vjepa2]", trials, "choose=demo", "seeds=[7]"]
    )
    cells = all_cells(config)
    assert [cell.name for cell in cells] == [
        "salt-vit_nano-1e13-s7-t0.2-lr0.001-teacher_share0.2",
        "vjepa2-vit_nano-1e13-s7-lr0.001",
        "salt-vit_nano-1e13-s7-t0.1-lr0.002",
        "vjepa2-vit_nano-1e13-s7-start0.99",
    ]
    overrides = train_overrides(cells[0], config)
    assert "optimizer.lr=1e-3" in overrides
    assert [one for one in overrides if "share" in one] == ["compute.teacher_share=0.2"]


def test_paths_of_evaluations_count_from_the_file_and_names_tell_them_apart(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    (tmp_path / "set.yaml").write_text("train: d.csv\nclasses: 2\n")
    file.write_text("probe:\n- {train: a.csv, name: other}\n- {test: b.csv}\n- {data: set.yaml}\n")
    found = evaluations(compare_config(str(file), GOOD[:3]))
    assert found.keys() == {"other", "folder", "set"}
    assert found["other"].train == str(tmp_path / "a.csv")
    assert found["folder"].test == str(tmp_path / "b.csv")
    assert (found["set"].train, found["set"].classes) == (str(tmp_path / "d.csv"), 2)
    here = evaluations(compare_config(str(file), [*GOOD[:3], "probe=[{train: a.csv}]"]))
    assert here["folder"].train == str(Path.cwd() / "a.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["encoders=[]"], r"compare\.encoders=\[\]: expected at least one"),
        (["budgets=[1e13,10000000000000]"], r"compare\.budgets=.*each once"),
        (["budgets=[0]"], r"compare\.budgets=\[0\]: expected FLOPs, each more than 0"),
        (["budgets=[big]"], r"compare\.budgets"),
        (["seeds=[1,1]"], r"compare\.seeds=\[1, 1\]: expected at least one, each once"),
        (["teacher_shares=[1.0]"], r"compare\.teacher_shares=\[1\.0\]: .*less than 1"),
        (["budget=[1e13]"], r"compare\.budget: unknown key; did you mean 'budgets'"),
        (["probe=[]"], r"compare\.probe=\[\]: expected at least one evaluation"),
        (["probe=[{data: demmo}]"], r"compare\.probe\[0\]: 'demmo' is no data set.*'demo'"),
        (["probe=[{data: demo, epoch: 3}]"], r"compare\.probe\[0\]: probe\.epoch.*'epochs'"),
        (["probe=[{data: demo},{data: demo}]"], r"probe\[1\]: a second evaluation.*'demo'"),
        (["overrides=[seed=3]"], r"compare\.overrides: 'seed=3': a comparison sets seed itself"),
        (["overrides=[+compute.budget=3]"], r"a comparison sets compute\.budget itself"),
        (["overrides=[fast]"], r"compare\.overrides: 'fast': expected key=value"),
        (["method_overrides={vjepa: [a=1]}"], r"compare\.method_overrides\.vjepa: not one of the"),
        (["seeds"], r"'seeds': expected key=value"),
        (["arms={salt: {method: salt}}"], r"compare\.arms\.salt: expected a name .*nor one of"),
        (["arms={a: {metod: salt}}"], r"compare\.arms\.a\.metod: unknown key; .*'method'"),
        (["arms={a: {method: salt, budgets: [2e13]}}"], r"arms\.a\.budgets: 2e13: .*: 1e13"),
        (
            ["arms={a: {method: salt, overrides: [seed=1]}}"],
            r"arms\.a: 'seed=1': a comparison sets",
        ),
        (
            ["arms={a: {method: salt, overrides: ['checkpoint={slt}']}}"],
            r"compare\.arms\.a: \{slt\} is no method and no arm before this one; .*'salt'",
        ),
        (["trials={salt: [[a=1]]}"], r"compare\.trials: needs compare\.choose"),
        (["trials={salt: [[a=1],[a=1]]}"], r"trials\.salt: a trial stands there twice"),
        (
            ["methods=[salt,vjepa]", "trials={salt: [[a=1],[a=2]], vjepa: [[a=1]]}"],
            r"compare\.trials: 2 of salt, 1 of vjepa: expected as many trials of each",
        ),
        (["reference=vjepa"], r"compare\.reference: neither a method nor an arm"),
        (["endpoint=[demo.linea]"], r"endpoint: 'demo\.linea': not one of .*'demo\.linear'"),
        (["margin=-1"], r"compare\.margin=-1: expected"),
    ],
)
def test_bad_values_are_named(empty: str, changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare_config(empty, [*GOOD, *changes])


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ConfigError, match="'dmo' is no comparison; did you mean 'demo'"):
        compare_config("dmo")


@pytest.mark.parametrize("budget", [1e13, 1.2e21])
def test_budgets_reach_the_run_unchanged(empty: str, budget: float) -> None:
    config = compare_config(empty, [*GOOD, f"budgets=[{budget}]"])
    parsed = OverridesParser.create().parse_overrides(train_overrides(all_cells(config)[0], config))
    assert {one.key_or_group: one.value() for one in parsed}["compute.budget"] == budget


def test_a_run_folder_of_any_name_is_one_override() -> None:
    folder = Path("/a b/it's=1,{x}/\\c")
    (override,) = OverridesParser.create().parse_overrides([run_dir_override(folder)])
    assert override.value() == str(folder)
