"""Names that users give: printed as they are, and not all of them are UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import outcome
import pytest
from small_run import TINY

from salt_plugin import cli
from salt_plugin.config import compose
from salt_plugin.data import read_inputs
from salt_plugin.report.compute import bills_table
from salt_plugin.report.console import console
from salt_plugin.report.loss_accuracy import ranking_table
from salt_plugin.report.study_tables import Lines, jobs_table
from salt_plugin.studies.cluster import cluster_config
from salt_plugin.train import run

MARKUP = "[bold]a[/] :smile: [/red] $x_1$"
FILM = os.fsdecode(b"film\xff.mp4")


@pytest.fixture(scope="module")
def strange(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes with two videos each, and one file that is no video."""
    folder = tmp_path_factory.mktemp("strange")
    for source, name in (("ant", os.fsdecode(b"caf\xe9")), ("bee", r"[bold]$\foo$")):
        (folder / name).mkdir()
        for number in (1, 2):
            shutil.copy(tiny_videos / source / f"{number}.mp4", folder / name / f"{number}{FILM}")
    Path(bad_file(folder)).write_text("no video")
    return folder


@pytest.fixture(scope="module")
def trained(strange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / MARKUP
    keys = ["method=pixel_teacher", *TINY, "trainer.max_steps=6", "method.data.max_bad=0.5"]
    cfg = compose([*keys, "method.encoders_every_n_steps=3"])
    cfg.input_dir = str(strange)
    run(cfg, run_dir)
    return run_dir


def bad_file(strange: Path) -> str:
    return str(strange / os.fsdecode(b"caf\xe9") / f"bad{FILM}")


def salt(capsys: pytest.CaptureFixture[str], monkeypatch: Any, *arguments: str) -> str:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["salt", *arguments])
    cli.main()
    return capsys.readouterr().out


def test_training_skips_and_lists_files_of_any_name(
    trained: Path, strange: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = bad_file(strange)
    assert list(outcome.skipped(trained)) == [bad]
    assert os.fsencode(bad) in (trained / "skipped.csv").read_bytes()
    cfg = compose(["method=pixel_teacher", *TINY, "trainer.max_steps=6"])
    cfg.input_dir, cfg.method.encoders_every_n_steps = str(strange), 3
    run(cfg, trained)  # a finished run prints its summary again
    out = capsys.readouterr().out
    assert f"pixel_teacher in {trained}\n" in out
    assert f"Encoder: {trained}/teacher/encoder.safetensors\n" in out


@pytest.mark.filterwarnings("ignore:4 of 4 videos")  # xdist cannot send the name of a file
def test_every_command_prints_the_path_of_a_run(
    trained: Path,
    strange: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = str(trained)
    assert MARKUP in salt(capsys, monkeypatch, "flops", path)
    good = [f'"{name}",{name.parent.name}' for name in sorted(strange.glob("*/[12]*.mp4"))]
    (tmp_path / "good.csv").write_text("\n".join(good), errors="surrogateescape")
    lists = [f"--{key}={tmp_path / 'good.csv'}" for key in ("train", "test")]
    options = [*lists, "--protocol=knn", f"--cache={tmp_path / MARKUP}"]
    clip = ["--size=32", "--frames=4", "--step=1", "--workers=0"]
    figures = f"--figures={tmp_path / 'figures'}"
    out = salt(capsys, monkeypatch, "probe", path, *options, *clip, figures)
    assert f"{path}, frozen" in out
    assert {one.name for one in (tmp_path / "figures").iterdir()} >= {"confusion-knn.png"}
    found = salt(capsys, monkeypatch, "probe", path, *options, *clip, "--json")
    assert json.loads(found)["knn"]["n_test"] == 4
    out = salt(capsys, monkeypatch, "track", path, *options)
    assert f"{path}/track/track.csv\n" in out


def test_data_check_writes_names_as_they_are(
    strange: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    lists = [f"--clean={tmp_path / 'clean.csv'}", f"--quarantine={tmp_path / 'bad.csv'}"]
    options = ["--workers=1", "--positions=1", *lists]
    out = salt(capsys, monkeypatch, "data", "check", str(strange), *options, "--json")
    verdicts = json.loads(out)["verdicts"]
    videos = read_inputs(strange)
    assert [verdict["path"] for verdict in verdicts] == videos.paths
    assert set(read_inputs(tmp_path / "clean.csv").paths) == set(videos.paths) - {bad_file(strange)}
    assert os.fsencode(bad_file(strange)) in (tmp_path / "bad.csv").read_bytes()


@pytest.mark.slow
def test_a_name_that_is_not_utf8_on_the_command_line(strange: Path, tmp_path: Path) -> None:
    folder = os.fsencode(strange) + b"/caf\xe9"
    given = [sys.executable, "-m", "salt_plugin.cli", "data", "check", folder, "--workers=1"]
    done = subprocess.run(
        [*given, "--positions=1", "--reader=auto"],
        capture_output=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"2 of 3 files can be trained on" in done.stdout
    assert b"badfilm" in done.stdout


def test_tables_hold_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    student = {"run": MARKUP, "encoder": "e[/]", "steps": 1, "loss": 1.0, "accuracy": None}
    bill = {"run": MARKUP, "parts": {}, "total": 1, "students": 1, "shared_total": 1}
    job = SimpleNamespace(
        stage="[b]s[/i]", elements=[SimpleNamespace(id="", name=MARKUP)], waits=[]
    )
    profile = {"[b]s[/i]": cluster_config("local", {})}
    tables = [ranking_table([student], None), bills_table([bill])]
    for table in [*tables, jobs_table([job], profile, {})]:
        console().print(table)
        assert MARKUP in capsys.readouterr().out
    with Lines(1) as lines:
        lines.failed(MARKUP, "[/]")
    assert f"{MARKUP}: failed: [/]  [1/1]\n" in capsys.readouterr().err
