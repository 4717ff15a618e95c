"""`salt track`, from the command line on, on runs of the demo."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from salt_plugin.checkpoints import read_card
from salt_plugin.commands.track import main
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import RunDirectory
from salt_plugin.train import run

TINY = [
    "method=salt",
    "preset=demo",
    "method.model.predictor.dim=24",
    "method.model.predictor.depth=1",
    "method.data.demo.train=40",
    "method.data.demo.test=16",
    "method.data.cache=false",
    "method.encoders_every_n_steps=2",
    "method.teacher.max_steps=1",
    "method.probe=null",
    "loader.batch_size=2",
    "trainer.max_steps=5",
]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    root = tmp_path_factory.mktemp("runs") / "first"
    run(compose(TINY), root)
    return root


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    main([*map(str, arguments), "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


@pytest.mark.slow
def test_a_demo_run_is_tracked_without_further_words(
    tracked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, tracked)
    assert (result["stage"], result["task"], result["n"]) == ("student", "direction", 3)
    assert result["protocol"] == "attentive"
    assert result["clip"] == {"frames": 8, "size": 32, "step": 1, "fps": None}
    assert set(result["leaks"].values()) == {0}
    assert result == json.loads((tracked / "track" / "track.json").read_text())
    student = RunDirectory(tracked).student
    assert [point["step"] for point in result["points"]] == [2, 4, 5]
    for point in result["points"]:
        assert point["loss"] == read_card(student.encoder_at(point["step"]))["loss"]
        assert 0 <= point["accuracy"] <= 1
        assert 1 <= point["effective_rank"] <= 16
        assert point["spread"] > 0
    with (tracked / "track" / "track.csv").open() as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    assert rows == result["points"]
    for figure in ("track", "track_pca"):
        assert (tracked / "figures" / f"{figure}.png").stat().st_size > 5000


def test_a_demo_run_of_a_version_that_left_input_dir_empty_is_one_still(
    tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(tracked, old)
    text = (old / "config.yaml").read_text()
    assert "input_dir: demo:train.csv\n" in text
    (old / "config.yaml").write_text(text.replace("demo:train.csv", "''"))
    assert call(capsys, old, "--protocol", "knn")["task"] == "direction"
    assert len(call(capsys, old, tracked)["students"]) == 2
    assert run(compose(TINY), old)["method"] == "salt"  # finished, as before


def test_labelled_videos_and_a_folder_of_one_s_own(
    tracked: Path, tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ["--train", tiny_videos, "--test", tiny_videos, "--out", tmp_path / "out"]
    with pytest.warns(UserWarning, match="6 of 6 videos of the list test are in the list train"):
        result = call(capsys, tracked, *lists, "--protocol", "knn")
    assert result["leaks"]["test_in_train"] == 6
    assert (result["task"], result["protocol"]) == ("test", "knn")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"track.csv", "track.json", "track.png", "track_pca.png"}
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/out cannot be written to"):
        main([str(tracked), "--out", str(tmp_path / "file" / "out"), "--protocol", "knn"])


def test_features_stay_where_asked_for_and_nowhere_else(
    tracked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [tracked, "--protocol", "linear", "--out", tmp_path / "out"]
    found = call(capsys, *command)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert call(capsys, *command, "--cache", tmp_path / "cache") == found
    assert len(list((tmp_path / "cache").iterdir())) == 6  # two lists of three encoders


def test_students_of_one_teacher_are_ranked(
    tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    teacher = f"method.teacher.path={tracked}/teacher"
    run(compose([*TINY, teacher, "seed=2", "optimizer.lr=0.1"]), other)
    alone = call(capsys, tracked, other)
    losses = [student["loss"] for student in alone["students"]]
    assert losses == sorted(losses)
    assert {student["accuracy"] for student in alone["students"]} == {None}
    asked = call(
        capsys,
        tracked,
        other,
        "--task",
        "direction",
        "--protocol",
        "knn",
        "--out",
        tmp_path / "out",
    )
    assert [one["run"] for one in asked["students"]] == [one["run"] for one in alone["students"]]
    assert all(0 <= student["accuracy"] <= 1 for student in asked["students"])
    assert (asked["n"], asked["r2"]) == (2, None)
    assert json.loads((tmp_path / "out" / "ranking.json").read_text()) == asked


def test_a_student_of_another_teacher_is_not_ranked_with_it(tracked: Path, tmp_path: Path) -> None:
    run(compose([*TINY, "seed=2"]), tmp_path)
    with pytest.raises(ConfigError, match="these students have different teachers"):
        main([str(tracked), str(tmp_path)])


@pytest.mark.parametrize("wrong", [["--train", "a.csv"], ["--task", "speed"], []])
def test_wrong_use_is_told_from_what_is_not_there(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *wrong] if wrong else [])
    assert ended.value.code == 2
    assert "usage: salt track" in capsys.readouterr().err
