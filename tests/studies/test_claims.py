"""Claims: intervals and verdicts by hand, claims that cannot work, and the shipped ones."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from salt_plugin.cli import main
from salt_plugin.conf_folder import slurm_folder
from salt_plugin.config.claim import ClaimArm, ClaimConfig
from salt_plugin.config.suggest import shipped
from salt_plugin.errors import ConfigError
from salt_plugin.report.intervals import correlation_interval, mean_interval
from salt_plugin.report.statements import (
    CONTRADICTS,
    OPEN,
    SUPPORTS,
    Finding,
    claim_line,
    findings,
    verdict_of,
)
from salt_plugin.studies.arrays import jobs_of
from salt_plugin.studies.claims import compared_rows, values_of
from salt_plugin.studies.cluster import cluster_config
from salt_plugin.studies.costs import costs_of
from salt_plugin.studies.elements import Element, all_elements, reported
from salt_plugin.studies.missing import profiles_of
from salt_plugin.studies.pipeline import PipelineConfig, pipeline_config
from tests.studies.conftest import OVERRIDES

STUB = Path(__file__).parent / "stub_trainer.py"
CLAIMS = [f"c{number}" for number in range(1, 9)]


def test_intervals_by_hand() -> None:
    # t of 2 degrees of freedom is 4.30265; the deviation of 1, 2, 3 is 1.
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx(
        (2, 2 - 2.48414, 2 + 2.48414, 3), abs=1e-5
    )
    assert mean_interval([0.5]) == (0.5, None, None, 1)
    assert mean_interval([]) == (None, None, None, 0)
    # atanh(0.8) = ln 3, whose standard error is 1 with four points: e^2z is 9 / e^3.91993 and
    # 9 e^3.91993 at the ends.
    found = correlation_interval([1, 2, 3, 4], [1, 3, 2, 4])
    assert found == pytest.approx((0.8, -0.69695, 0.99560, 4), abs=1e-4)
    assert correlation_interval([1, 2, 3], [3, 2, 1]) == (-1, None, None, 3)
    assert correlation_interval([1, 1, 1, 1], [1, 2, 3, 4]) == (None, None, None, 4)


def rows_of(**accuracies: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of probes as a study writes them: of each stage the accuracies of seeds 1, 2, ..."""
    return [
        {"stage": stage, "element": f"s{seed}", f"{stage}.seed": str(seed), "linear": accuracy}
        for stage, found in accuracies.items()
        for seed, accuracy in enumerate(found, 1)
    ]


def claim_of(*statements: str, **arms: ClaimArm) -> ClaimConfig:
    given = {name: ClaimArm([name]) for name in ("a", "b")}
    return ClaimConfig("a is something", given | arms, [*statements])


def found_of(claim: ClaimConfig, rows: Sequence[dict[str, Any]]) -> list[Finding]:
    return findings(claim.statements, claim.margin, values_of(claim, rows))


@pytest.mark.parametrize(
    ("statement", "differences", "verdict"),
    [
        ("a > b", [0.1, 0.2, 0.3], OPEN),  # 0.2 ± 0.248
        ("a > b", [0.19, 0.2, 0.21], SUPPORTS),
        ("a > b", [-0.19, -0.2, -0.21], CONTRADICTS),
        ("a > b", [0.2], OPEN),  # one seed separates nothing
        ("a > b", [], OPEN),
        ("a = b", [0.01, 0.0, -0.01], SUPPORTS),  # ± 0.025
        ("a = b", [0.04, 0.03, 0.02], OPEN),  # 0.03 ± 0.025
        ("a = b", [0.19, 0.2, 0.21], CONTRADICTS),
        ("a = b", [-0.19, -0.2, -0.21], CONTRADICTS),
        ("a >= b", [-0.01, 0.0, 0.01], SUPPORTS),
        ("a >= b", [0.19, 0.2, 0.21], SUPPORTS),
        ("a >= b", [-0.04, -0.03, -0.02], OPEN),
        ("a >= b", [-0.19, -0.2, -0.21], CONTRADICTS),
    ],
)
def test_a_verdict_is_where_the_interval_lies(
    statement: str, differences: list[float], verdict: str
) -> None:
    claim = claim_of(statement)
    rows = rows_of(a=[0.5 + one for one in differences], b=[0.5 for _ in differences])
    (found,) = found_of(claim, rows)
    assert found.verdict == verdict_of([found]) == verdict
    assert found.n == len(differences)


def test_differences_are_paired_by_seed_and_whole_encoders_alone_count() -> None:
    claim = claim_of("a > b", a=ClaimArm(["a", "a2"], {"a.kind": "1e12"}))
    rows = rows_of(a=[0.5, 0.6, 0.9], a2=[0.7, 0.8], b=[0.1, 0.3, 0.5])
    rows += [{**rows_of(a=[0.0])[0], "element": "other", "a.kind": "2e12"}]
    for row in rows[:5]:
        row["a.kind"] = "1000000000000.0"  # as a sweep writes it
    values = values_of(claim, rows)
    assert [(row["arm"], row["seed"]) for row in values] == [
        ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)
    ]  # fmt: skip
    (found,) = findings(claim.statements, claim.margin, values)
    # (0.5 + 0.7) / 2 - 0.1 and (0.6 + 0.8) / 2 - 0.3: 0.5 and 0.4; t of 1 is 12.7062.
    assert (found.effect, found.n, found.seeds) == (pytest.approx(0.45), 2, "1 2")
    assert found.high == pytest.approx(0.45 + 12.7062 * 0.05, abs=1e-5)
    line = claim_line("c9", claim.says, [found])
    assert line == ("c9 does not separate: a is something: a > b: +0.450 [-0.185, +1.085], 2 seeds")


def test_one_statement_against_a_claim_decides() -> None:
    claim = claim_of("a > b", "a > c", c=ClaimArm(["c"]))
    rows = rows_of(a=[0.5, 0.5, 0.5], b=[0.3, 0.31, 0.29], c=[0.7, 0.71, 0.69])
    found = found_of(claim, rows)
    assert [one.verdict for one in found] == [SUPPORTS, CONTRADICTS]
    assert verdict_of(found) == CONTRADICTS
    found = found_of(claim, rows[:-2])  # of c one seed is left
    assert verdict_of(found) == OPEN


def losses(stage: str, found: Sequence[float], accuracies: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of runs with a loss, and of probes of them."""
    rows = []
    for number, (loss, accuracy) in enumerate(zip(found, accuracies, strict=True)):
        swept = {"teacher.seed": "1", f"{stage}.optimizer.lr": str(number)}
        rows += [
            {"stage": stage, "element": f"lr{number}", "loss": loss, **swept},
            {"stage": "a", "element": f"lr{number}", "linear": accuracy, **swept},
        ]
    return rows


def test_a_loss_predicts_where_it_explains_half_of_the_accuracy() -> None:
    says = "loss of student predicts a", "loss of student does not predict a"
    claim = claim_of(*says)
    down, n = [0.9, 0.8, 0.71, 0.6, 0.5, 0.41, 0.3, 0.2], range(8)
    for accuracies, verdicts in (
        (down, [SUPPORTS, CONTRADICTS]),
        (down[::-1], [CONTRADICTS, CONTRADICTS]),
        ([0.5, 0.1, 0.4, 0.2, 0.3, 0.2, 0.4, 0.1], [OPEN, OPEN]),
    ):
        rows = losses("student", [float(one) for one in n], accuracies)
        found = found_of(claim, rows)
        assert [one.verdict for one in found] == verdicts
    rows = losses("student", [1, 2, 3, 4], [1, 3, 2, 4])
    found, _ = found_of(claim, rows)
    assert (found.effect, found.r2, found.spearman) == pytest.approx((0.8, 0.64, 0.8))


def test_the_loss_of_a_teacher_is_that_of_each_of_its_students() -> None:
    claim = claim_of("loss of teacher predicts a")
    rows = losses("student", [1, 2], [0.5, 0.6])
    rows += [{"stage": "teacher", "element": "s1", "loss": 0.25, "teacher.seed": "1"}]
    rows += [{"stage": "teacher", "element": "s2", "loss": 0.75, "teacher.seed": "2"}]
    assert [row["loss_of_teacher"] for row in values_of(claim, rows)] == [0.25, 0.25]


PIPELINE = """
overrides: [preset=demo]
inputs: {seeds: "1,2", %s}
stages:
  run: {method: pixel_teacher, sweep: ["seed={inputs.seeds}"]}
  probe: {command: probe, needs: run, overrides: ["{needs}", --json]}
  report: {command: report, after: [probe], claim: {says: it is, arms: {a: {probes: [probe]}}, %s}}
"""


def read(
    folder: Path, inputs: str, claim: str, *changes: str
) -> tuple[PipelineConfig, list[Element]]:
    file = folder / "mine.yaml"
    file.write_text(PIPELINE % (inputs, claim))
    config = pipeline_config(str(file), changes)
    return config, all_elements(config, folder / "study")


def test_inputs_stand_in_sweeps_and_can_be_given(tmp_path: Path) -> None:
    fine = "statements: [a = a], margin: 0.1"
    _, elements = read(tmp_path, "", fine, "inputs.seeds=7")
    assert [one.id for one in elements] == ["run/s7", "probe/s7", "report/all"]
    assert elements[1].arguments == ["probe", str(tmp_path / "study/run/s7"), "--json"]
    for inputs, claim, said in (
        ("mouths: '???'", fine, "pipeline.inputs.mouths: missing; give it a value"),
        ("seed: 1", "protocol: '{inputs.sed}', statements: [a > a]", "did you mean 'seed'"),
        ("", "statements: [a < a]", "'a < a': expected A > B, A >= B"),
        ("", "statements: [a > b]", "there is no 'b'"),
        ("", "statements: [loss of rum predicts a]", "did you mean 'run'"),
        ("", "statements: [a > a], margin: 2", "margin=2"),
    ):
        with pytest.raises(ConfigError) as error:
            read(tmp_path, inputs, claim)
        assert said in str(error.value)


PART = """
inputs: {seeds: "%s"}
stages:
  run: {method: %s, sweep: ["seed={inputs.seeds}"]}
  %s: {command: report, after: [run]}
"""


def test_pipelines_that_are_included_share_what_is_alike(tmp_path: Path) -> None:
    for name, seeds, method in (("a", "1,2", "salt"), ("b", "2,3", "salt"), ("c", "3", "vjepa")):
        (tmp_path / f"{name}.yaml").write_text(PART % (seeds, method, name))
    (tmp_path / "d.yaml").write_text(f"{PART % ('2', 'salt', 'd')}overrides: [optimizer.lr=1]")
    study = tmp_path / "study"

    def together(names: str, *changes: str) -> PipelineConfig:
        file = tmp_path / "all.yaml"
        file.write_text(f"include: [{', '.join(f'{tmp_path}/{name}.yaml' for name in names)}]\n")
        return pipeline_config(str(file), changes)

    config = together("ab", "overrides=[preset=demo]")
    elements = all_elements(config, study)
    assert [one.id for one in elements] == ["run/s1", "run/s2", "run/s3", "a/all", "b/all"]
    assert all("preset=demo" in one.arguments for one in elements[:3])
    assert reported(config, study, "b") == {"run/s2", "run/s3", "b/all"}
    assert len(all_elements(together("ab", "inputs.seeds=5"), study)) == 1 + 2
    with pytest.raises(ConfigError, match="the stages run differ in more than their sweeps"):
        together("ac")
    with pytest.raises(ConfigError, match=r"run/s2 is not the same in all: optimizer\.lr=1"):
        all_elements(together("ad"), study)
    with pytest.raises(ConfigError, match=r"inputs\.sed: no pipeline that is included has it"):
        together("ab", "inputs.sed=5")


def comparison(file: Path, seeds: Sequence[int]) -> Path:
    """Writes `results.csv` of a comparison, of whose last seeds not all is done.

    The endpoint of SALT is above that of V-JEPA 2 by a seed's tenth, and below that of V-JEPA.
    """
    lines = ["arm,kind,encoder,budget,chosen,seed,whole,status,endpoint"]
    for seed in seeds:
        lines += [
            f"random,,vit_nano,0.0,True,{seed},True,done,0.1",
            f"salt,online,vit_nano,1e13,True,{seed},True,done,{0.5 + seed / 100}",
            f"salt,ema,vit_nano,1e13,False,{seed},True,done,0.9",
            f"salt,online,vit_nano,5000000000000.0,True,{seed},True,done,0.9",
        ]
        for arm, endpoint in (("vjepa2", 0.4), ("vjepa1", 0.6)):
            lines += [
                f"{arm},{kind},vit_nano,10000000000000.0,False,{seed},True,done,{endpoint}"
                for kind in ("ema", "online")
            ]
    lines.append(f"salt,online,vit_nano,1e13,True,{seeds[-1] + 2},False,done,0.1")
    lines.append(f"salt,,vit_nano,1e13,,{seeds[-1] + 1},False,unfinished,")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def shipped_claims(
    tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[PipelineConfig, list[Element]]]:
    """The eight claims, and all of them together."""
    study, found = tmp_path_factory.mktemp("study"), {}
    rows = comparison(tmp_path_factory.mktemp("compared") / "results.csv", [1, 2])
    given = {"c2": [f"inputs.rows={rows}"], "c8": [f"inputs.mouths={tiny_videos}"]}
    given["all"] = given["c2"] + given["c8"]
    for name in (*CLAIMS, "all"):
        changes = given.get(name, [])
        config = pipeline_config(f"claims/{name}", changes)
        found[name] = config, all_elements(config, study)
    return found


def test_the_shipped_claims_are_whole_and_share_their_runs(
    shipped_claims: dict[str, tuple[PipelineConfig, list[Element]]],
) -> None:
    names = shipped(slurm_folder(), "claims")
    assert {f"claims/{name}" for name in (*CLAIMS, "all")} < {*names}
    with pytest.raises(ConfigError, match="did you mean 'claims/c1'"):
        pipeline_config("claims/c11")
    for name, lacking in (("all", "rows"), ("c2", "rows"), ("c8", "mouths")):
        with pytest.raises(ConfigError, match=rf"inputs\.{lacking}: missing"):
            pipeline_config(f"claims/{name}")
    config, together = shipped_claims["all"]
    ids = {one.id for one in together}
    assert len(ids) == len(together)
    profiles = profiles_of(config, cluster_config("slurm", {}))
    assert all(job.stage in profiles for job in jobs_of(config, together))
    for name in CLAIMS:
        own, elements = shipped_claims[name]
        claim = own.stages[name].claim
        assert claim is not None
        assert {one.id for one in elements} <= ids
        probes = {stage for stage, one in own.stages.items() if one.command == "probe"}
        assert {*own.stages[name].after} == probes
        # Each arm has encoders, once they are probed.
        rows: list[dict[str, Any]] = compared_rows(claim.rows) if claim.rows else []
        rows += [
            {"stage": one.stage, "element": one.name, "linear": 0.5}
            | {
                f"{stage}.{key}": value
                for stage, of in one.values.items()
                for key, value in of.items()
            }
            for one in elements
        ]
        assert {row["arm"] for row in values_of(claim, rows)} == {*claim.arms}
    runs = [one for one in together if one.arguments[0] == "train"]
    apart = sum(one.arguments[0] == "train" for name in CLAIMS for one in shipped_claims[name][1])
    assert len(runs) < apart


@pytest.mark.slow
def test_the_shipped_claims_compose_and_are_priced(
    shipped_claims: dict[str, tuple[PipelineConfig, list[Element]]],
) -> None:
    # One of each stage.
    config, together = shipped_claims["all"]
    elements = [*{one.stage: one for one in reversed(together)}.values()][::-1]
    costs = costs_of(elements, profiles_of(config, cluster_config("local", {})))
    for one in elements:
        budgets = [text for text in one.arguments if text.startswith("compute.budget=")]
        if budgets:
            cost = costs[one.id]
            assert cost.spent is not None
            assert 0.9 * float(budgets[0].partition("=")[2]) < cost.spent
            assert cost.spent <= float(budgets[0].partition("=")[2])


def launched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[str]:
    """Launches in ./study, and returns the lines of stdout."""
    monkeypatch.setattr(sys, "argv", ["salt", "launch", *arguments, "--out", "study"])
    main()
    return capsys.readouterr().out.splitlines()


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return [*csv.DictReader(opened)]


def test_a_launch_ends_with_the_line_of_each_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    profile = {"kind": "local", "python": f"{sys.executable} {STUB}", "array_parallelism": 4}
    Path("here.yaml").write_text(json.dumps(profile))
    Path("two.yaml").write_text("include: [claims/c1, claims/c7]\n")
    given = "two.yaml", "cluster=here.yaml", "inputs.seeds=1,2"
    lines = launched(monkeypatch, capsys, *given)
    # A teacher, a student, the second and third generation; of all but the second two probes.
    assert len([*Path("study").glob("*/*/finished.json")]) == 2 * (4 + 2 * 3) + 2
    assert [line.partition(":")[0].split()[0] for line in lines] == ["c1", "c7"]
    for name, line in zip(("c1", "c7"), lines, strict=True):
        folder = Path("study") / name / "all"
        (found,) = table(folder / "findings.csv")
        assert line == (folder / "claim.txt").read_text().rstrip()
        assert f" {found['verdict']}: " in line
        assert f"{float(found['effect']):+.3f} [{float(found['low']):+.3f}, " in line
        values = table(folder / "values.csv")
        one, other = found["statement"].split(" > ")
        means = [
            sum(float(row["accuracy"]) for row in values if row["arm"] == arm) / 2
            for arm in (one, other)
        ]
        assert float(found["effect"]) == pytest.approx(means[0] - means[1])
        assert (folder / "figures" / "claim.png").is_file()
        stages = {row["stage"] for row in table(folder / "results.csv")}
        assert ("third" in stages) == (name == "c7")
    assert launched(monkeypatch, capsys, *given) == lines


def test_a_claim_about_a_comparison_is_read_from_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = comparison(tmp_path / "results.csv", [1, 2, 3])
    given = "claims/c2", "inputs.rows=results.csv"
    (line,) = launched(monkeypatch, capsys, *given)
    assert line.startswith("c2 contradicts: ")
    found = table(Path("study/c2/all/findings.csv"))
    assert [one["verdict"] for one in found] == [SUPPORTS] * 2 + [CONTRADICTS] * 2
    assert {one["seeds"] for one in found} == {"1 2 3"}
    assert float(found[0]["effect"]) == pytest.approx(0.12)
    values = table(Path("study/c2/all/values.csv"))
    assert values[0]["element"] == "salt-online-vit_nano-s1"
    assert len(table(Path("study/c2/all/results.csv"))) == 3 * 8
    # Once there are further rows, it is read again.
    assert launched(monkeypatch, capsys, *given) == [line]
    later = Path("study/c2/all/finished.json").stat().st_mtime + 1
    os.utime(comparison(file, [1, 2, 3, 4]), (later, later))
    (again,) = launched(monkeypatch, capsys, *given)
    assert "4 seeds" in again
    for text, said in (
        ("arm,seed\n", "no column 'endpoint'"),
        ("arm,seed,endpoint\n", "no column 'whole'"),  # of an earlier version
        (None, "rows: .*: no such file"),
    ):
        file.unlink()
        if text:
            file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            pipeline_config("claims/c2", [f"inputs.rows={file}"])


@pytest.mark.release  # three minutes; stubs are tested always
@pytest.mark.slow
def test_the_first_claim_from_videos_to_verdict(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(tiny_videos)
    lists = {"train": folder, "test": folder, "workers": 0, "protocols": ["linear"]}
    Path("ants.yaml").write_text(yaml.safe_dump(lists))
    overrides = [f"input_dir={folder}", "method.encoder=vit_nano", "method.probe=null"]
    overrides += [one for one in OVERRIDES if not one.startswith("trainer.max_steps")]
    lines = launched(
        monkeypatch,
        capsys,
        "claims/c1",
        "cluster.array_parallelism=2",
        f"overrides=[{','.join(overrides)}]",
        "inputs.teacher=5e8",
        "inputs.budget=2e9",
        "inputs.seeds=1,2",
        "inputs.motion=ants.yaml",
        "inputs.appearance=ants.yaml",
    )
    report = Path("study/c1/all")
    (found,) = table(report / "findings.csv")
    assert lines[-1] == (report / "claim.txt").read_text().rstrip()
    assert lines[-1].startswith(f"c1 {found['verdict']}: ")
    assert (found["statement"], found["n"], found["seeds"]) == ("student > teacher", "2", "1 2")
    values = table(report / "values.csv")
    assert [row["arm"] for row in values] == ["student"] * 2 + ["teacher"] * 2
    for row in table(report / "results.csv"):
        if row["stage"] in ("teacher", "student"):
            assert 0 < float(row["flops"]) <= {"teacher": 5e8, "student": 2e9}[row["stage"]]
