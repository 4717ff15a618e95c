"""`salt compare`, from the command line on; training is a stub but for the last test."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from salt_plugin.commands.compare import main
from salt_plugin.errors import ConfigError, SaltError

STUB = Path(__file__).parent / "stub_trainer.py"
SALT, PIXELS = CELLS = "salt-vit_nano-steps-s1", "pixel_teacher-vit_nano-steps-s1"
Tiny = Callable[..., Path]


@pytest.fixture
def stub(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The change that has a stub in Python's place."""
    profile = tmp_path_factory.mktemp("profile") / "here.yaml"
    keys = {"kind": "local", "python": f"{sys.executable} {STUB}", "array_parallelism": 1}
    profile.write_text(json.dumps(keys))
    return f"cluster={profile}"


def rows_of(out: Path) -> list[dict[str, str]]:
    """Rows without the one column that no two trainings share."""
    with (out / "results.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def test_a_comparison_leaves_rows_a_table_and_figures(
    tiny: Tiny, tmp_path: Path, stub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(tiny(seeds=[1, 2])), stub, "--out", str(out), "--json", "--jobs", "2"]
    main(command)
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])
    rows = rows_of(out)
    assert [(row["method"], row["seed"], row["status"]) for row in rows] == [
        (method, seed, "done")
        for methods in (["random"], ["salt", "pixel_teacher"])
        for seed in "12"
        for method in methods
    ]
    assert {row["flops"] for row in rows} == {"0", "300"}
    assert {row["teacher_steps"] for row in rows if row["method"] == "salt"} == {"3"}
    assert {row["teacher_steps"] for row in rows if row["method"] != "salt"} == {""}
    assert all(0 <= float(row["bees_knn"]) <= 1 for row in rows)
    assert len(found["rows"]) == 6
    assert [group["n"] for group in found["groups"]] == [2, 2, 2]
    assert (out / "table.md").read_text().count("\n") == 2 + 3
    for name in ("accuracy", "loss", "allocation"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
    assert f"cells/{SALT}: started" in shown.err
    assert "11 of 11 elements are finished" in shown.err

    before = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")}
    main(command)
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")} == before


def test_both_encoders_of_a_run_have_rows_and_one_kind_is_chosen(
    tiny: Tiny, tmp_path: Path, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALT_STUB_ONLINE", "pixel_teacher")
    out = tmp_path / "out"
    main([str(tiny(seeds=[1, 2], choose="bees")), stub, "--out", str(out), "--jobs", "2"])
    rows = [row for row in rows_of(out) if row["method"] == "pixel_teacher"]
    assert [(row["kind"], row["seed"]) for row in rows] == [
        (kind, seed) for seed in "12" for kind in ("ema", "online")
    ]
    assert len({row["flops"] for row in rows}) == 1
    means = {
        kind: sum(
            float(row[column])
            for row in rows
            for column in ("bees_linear", "bees_knn")
            if row["kind"] == kind
        )
        for kind in ("ema", "online")
    }
    best = max(means, key=means.__getitem__)
    assert {row["kind"] for row in rows if row["chosen"] == "True"} == {best}
    assert f"| pixel_teacher {best}* |" in (out / "table.md").read_text()
    assert {row["chosen"] for row in rows_of(out) if row["method"] == "salt"} == {"True"}


WARM = {
    "method": "salt",
    "overrides": ["method.teacher.path={salt}/teacher", "checkpoint={salt}/teacher"],
}


def test_an_arm_starts_from_the_run_of_another_and_differs_by_intent(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "an 'out'"
    command = ["--out", str(out), "--dry-run"]
    with pytest.raises(
        ConfigError, match=r"differ in more than themselves .*checkpoint: '' in salt"
    ):
        main([str(tiny(arms={"warm": WARM})), *command])
    main([str(tiny(arms={"warm": WARM}, may_differ=["checkpoint"])), *command])
    shown = capsys.readouterr()
    assert "checkpoint: '' in salt, '' in pixel_teacher, {salt}/teacher in warm" in shown.err
    assert "method.teacher.path: None in salt, {salt}/teacher in warm" in shown.err
    salt, _, warm, _ = shown.out.splitlines()
    assert salt.startswith(f"{SALT}: ")
    name, _, overrides = warm.partition(": ")
    assert name == "warm-vit_nano-steps-s1"
    folder = str(out / "cells" / SALT).replace("'", "\\'")
    assert f"checkpoint='{folder}/teacher'" in shlex.split(overrides)


def test_arms_are_compared_seed_by_seed_by_their_endpoint(
    tiny: Tiny, tmp_path: Path, stub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = {"arms": {"warm": WARM}, "may_differ": ["checkpoint"], "reference": "pixel_teacher"}
    endpoint = {"endpoint": ["bees.knn", "bees.linear"], "margin": 0.5, "seeds": [1, 2]}
    main([str(tiny(**more, **endpoint)), stub, "--out", str(out), "--json"])
    shown = capsys.readouterr()
    started = [line.split()[0] for line in shown.err.splitlines() if line.endswith(": started")]
    cells = [one for one in started if one.startswith("cells/")]
    assert [one.partition("-")[0] for one in cells] == 2 * [
        "cells/salt",
        "cells/pixel_teacher",
        "cells/warm",
    ]
    rows = rows_of(out)
    for row in rows:
        accuracies = [float(row["bees_knn"]), float(row["bees_linear"])]
        assert float(row["endpoint"]) == pytest.approx(sum(accuracies) / 2)
    of = {(row["arm"], row["seed"]): float(row["endpoint"]) for row in rows}
    found = json.loads(shown.out.splitlines()[-1])["paired"]
    assert [(one["arm"], one["n"]) for one in found] == [("salt", 2), ("warm", 2)]
    for one in found:
        apart = [of[one["arm"], seed] - of["pixel_teacher", seed] for seed in "12"]
        assert one["difference"] == pytest.approx(sum(apart) / 2)
        half = 12.7062 * abs(apart[0] - apart[1]) / 2  # t at 1 degree of freedom
        assert one["high"] - one["difference"] == pytest.approx(half, rel=1e-5)
    with (out / "paired.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [o["verdict"] for o in found]
    assert (
        "less that of pixel_teacher, paired by seed; margin 0.5" in (out / "table.md").read_text()
    )
    assert (out / "figures" / "endpoint.png").stat().st_size > 5000


def test_trials_have_rows_and_the_best_is_named(tiny: Tiny, tmp_path: Path, stub: str) -> None:
    out = tmp_path / "out"
    rates = [[f"optimizer.lr={rate}"] for rate in ("1e-3", "2e-3")]
    trials = {"salt": rates, "pixel_teacher": rates}
    main([str(tiny(trials=trials, choose="bees.knn", seeds=[9])), stub, "--out", str(out)])
    rows = [row for row in rows_of(out) if row["arm"] != "random"]
    assert [(row["arm"], row["trial"]) for row in rows] == [
        (arm, rate) for (rate,) in rates for arm in ("salt", "pixel_teacher")
    ]
    table = (out / "table.md").read_text()
    assert "Best trials, by the mean of bees_knn" in table
    for arm in ("salt", "pixel_teacher"):
        own = [row for row in rows if row["arm"] == arm]
        best = max(own, key=lambda row: float(row["bees_knn"]))
        edge = f"{best['trial'].replace('e-3', '').replace('=', '=0.00')} is the"
        assert f"| {arm} vit_nano {best['trial']} | steps |" in table
        assert edge in table


def test_a_failed_run_is_named_and_the_others_stand(
    tiny: Tiny, tmp_path: Path, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("SALT_STUB_FAIL", "method=salt")
    with pytest.raises(SaltError, match=r"1 of 3 runs failed") as failed:
        main([str(tiny()), stub, "--out", str(out)])
    assert f"{SALT}: error: the sky has fallen" in str(failed.value)
    assert f"salt status {out}" in str(failed.value)
    assert [row["status"] for row in rows_of(out)] == ["done", "failed", "done"]
    assert {row["whole"] for row in rows_of(out)} == {"False"}
    monkeypatch.delenv("SALT_STUB_FAIL")
    main([str(tiny()), stub, "--out", str(out)])
    assert {(row["status"], row["whole"]) for row in rows_of(out)} == {("done", "True")}
    with pytest.raises(ConfigError, match=r"margin was 0\.05 and is now 0\.1\. Give the same"):
        main([str(tiny()), stub, "margin=0.1", "--out", str(out)])


def test_a_run_of_unknown_cost_is_named(
    tiny: Tiny, tmp_path: Path, stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("SALT_STUB_UNKNOWN", "salt")
    with pytest.raises(SaltError, match=rf"{SALT}: its FLOPs are unknown, for its teacher"):
        main([str(tiny()), stub, "--out", str(out)])
    assert [row["status"] for row in rows_of(out)] == ["done", "failed", "done"]


def test_runs_of_different_resolution_are_refused_before_anything_is_written(
    tiny: Tiny, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    larger = {"pixel_teacher": ["method.clip.size=64", "loader.batch_size=4"]}
    expected = (
        rf"runs of different resolution .*method\.clip\.size: 32 in {SALT}, 64 in {PIXELS}; "
        rf"method\.global_batch_size: 2 in {SALT}, 4 in {PIXELS}"
    )
    with pytest.raises(ConfigError, match=expected):
        main([str(tiny(method_overrides=larger)), "--out", str(out)])
    assert not out.exists()


APART = ["method/masks=tube", "method.model.init_std=0.1", "trainer.precision=bf16-mixed"]


def test_methods_differ_in_themselves_or_by_intent_alone(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--out", str(tmp_path / "out"), "--dry-run"]
    by_themselves = {"methods": ["salt", "videomae"]}
    main([str(tiny(**by_themselves)), *command])
    said = capsys.readouterr().err
    assert "method.masks._target_: salt_plugin.masks.MultiBlockMasks in salt, " in said
    rates = {"method_overrides": {"salt": ["optimizer.lr=0.5"]}}
    main([str(tiny(**rates)), *command])
    assert "optimizer.lr: 0.5 in salt, 0.000625 in pixel_teacher" in capsys.readouterr().err
    for change in APART:
        key = change.partition("=")[0].replace("/", ".")
        apart = {"method_overrides": {"pixel_teacher": [change]}}
        with pytest.raises(ConfigError, match=rf"differ in more than themselves .*{key}.*may_diff"):
            main([str(tiny(**apart)), *command])
        main([str(tiny(**apart, may_differ=[key])), *command])
        assert f"differs by intent: {key}" in capsys.readouterr().err
        both = {"salt": [change], "pixel_teacher": [change]}
        main([str(tiny(method_overrides=both)), *command])
        assert f"differs by intent: {key}" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["salt", "slat"]}, r"'slat' is no method; did you mean 'salt'"),
        ({"encoders": ["vit_tinny"]}, r"vit_tinny-.*: method\.encoder=vit_tinny.*vit_tiny"),
        ({"overrides": ["method.clip.sise=32"]}, rf"{SALT}: .*method\.clip\.sise"),
        ({"overrides": ["method.encoder=a"]}, r"overrides: 'method.encoder=a': a comparison sets"),
        ({"probe": [{"data": "folder"}]}, r"probe\.train: missing"),
        ({"choose": "wasps"}, r"compare\.choose: 'wasps': not one of the evaluations; .*bees"),
    ],
)
def test_what_cannot_work_is_found_before_training(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        main([str(tiny(**changes)), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_the_runs(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tiny()), "seeds=[4,5]", "--out", str(tmp_path / "out"), "--dry-run"])
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"{method}-vit_nano-steps-s{seed}"
        for seed in (4, 5)
        for method in ("salt", "pixel_teacher")
    ]
    assert "seed=4" in lines[0].split()
    assert last == "4 runs; nothing was trained"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_takes_more_runs_but_no_other_comparison(
    tiny: Tiny, tmp_path: Path, stub: str
) -> None:
    out = tmp_path / "out"
    main([str(tiny()), stub, "--out", str(out)])
    first = (out / "cells" / SALT / "summary.json").stat().st_mtime_ns
    changed = {"salt": ["method.teacher.max_steps=9"]}
    expected = rf"another study: method\.teacher\.max_steps was 2 and is now 9: cells/{SALT}\."
    with pytest.raises(ConfigError, match=expected):
        main([str(tiny(method_overrides=changed)), stub, "--out", str(out)])
    with pytest.raises(ConfigError, match=rf"missing now: cells/{SALT}, cells/{PIXELS}, and 3 mo"):
        main([str(tiny()), stub, "seeds=[2]", "--out", str(out)])
    (one,) = yaml.safe_load(tiny().read_text())["probe"]
    probe = json.dumps(one | {"frames": 8})
    with pytest.raises(ConfigError, match=r"bees\.frames was 4 and is now 8: probes/"):
        main([str(tiny()), stub, f"probe=[{probe}]", "--out", str(out)])
    main([str(tiny()), stub, "seeds=[1,2]", "--out", str(out)])
    assert len(rows_of(out)) == 6
    assert (out / "cells" / SALT / "summary.json").stat().st_mtime_ns == first
    with (out / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another process works on .*compare"):
            main([str(tiny()), stub, "seeds=[1,2]", "--out", str(out)])


@pytest.mark.slow
def test_a_comparison_of_an_earlier_version_goes_on(tiny: Tiny, tmp_path: Path, stub: str) -> None:
    out = tmp_path / "out"
    main([str(tiny()), stub, "--out", str(out)])
    before = rows_of(out)
    for name in ("code", "probes", "baselines", "report"):
        shutil.rmtree(out / name)
    new = [f"cells/{cell}/{name}" for cell in CELLS for name in ("attempts.jsonl", "finished.json")]
    for name in ("study.json", "pipeline.yaml", *new):
        (out / name).unlink()
    main([str(tiny()), stub, "--out", str(out)])
    assert rows_of(out) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.release)]
)
def test_stopped_in_the_middle_the_same_command_ends_as_if_it_had_not_been(
    tiny: Tiny, tmp_path: Path, stub: str, stop: signal.Signals
) -> None:
    config, whole, out = tiny(), tmp_path / "whole", tmp_path / "out"
    main([str(config), stub, "--out", str(whole)])
    command = [sys.executable, "-m", "salt_plugin.cli", "compare", str(config), stub]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        env=os.environ | {"SALT_STUB_WAIT": str(tmp_path / "never")},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = out / "cells" / PIXELS / "log.txt"
    deadline = time.monotonic() + 120
    while not (log.is_file() and "step 1 of 3" in log.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    if stop != signal.SIGKILL:
        last = "error: stopped; 2 of 6 elements are finished; the same command goes on"
        assert errors.splitlines()[-1] == last
        assert [row["status"] for row in rows_of(out)] == ["unfinished", "done", "unfinished"]
    time.sleep(0.1)
    at_work = subprocess.run(["pgrep", "-f", f"{out}/cells/"], capture_output=True, text=True)
    assert at_work.stdout == ""
    main([str(config), stub, "--out", str(out)])
    assert rows_of(out) == rows_of(whole)
    assert (out / "table.md").read_text() == (whole / "table.md").read_text()
