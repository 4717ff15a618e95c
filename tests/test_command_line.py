"""What users type: options of Hydra, and paths with any characters."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from small_run import SMALL

from salt_plugin import cli, host
from salt_plugin.config import compose, load_config
from salt_plugin.config.command_line import quoted
from salt_plugin.training.progress import rate_of_another_batch

QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]


class Typed:
    """Runs `salt` in this process, in a folder of its own, and keeps what is to be trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch = monkeypatch
        self.jobs: list[DictConfig] = []
        monkeypatch.chdir(folder)
        monkeypatch.setattr(host, "train_job", self.jobs.append)

    def __call__(self, *arguments: str) -> None:
        self.monkeypatch.setattr(sys, "argv", ["salt", *arguments])
        cli.main()


@pytest.fixture
def salt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Typed:
    return Typed(monkeypatch, tmp_path)


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A folder of configurations as users keep them beside the package's."""
    folder = tmp_path / "configs"
    (folder / "experiment").mkdir(parents=True)
    small = "# @package _global_\ndefaults:\n  - override /method: vjepa\nseed: 5\n"
    (folder / "experiment" / "small.yaml").write_text(small)
    mine = "defaults:\n  - config\n  - override method: videomae\n  - _self_\nseed: 6\n"
    (folder / "mine.yaml").write_text(mine)
    (folder / "plain.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 7\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "method", "seed"),
    [
        ([], "salt", 1),
        (["method=vjepa2"], "vjepa2", 1),
        (["--config-dir=configs", "+experiment=small"], "vjepa", 5),
        (["--config-dir=configs", "--config-name=mine"], "videomae", 6),
        (["--config-dir=configs", "--config-name=plain"], "salt", 7),
        (["--config-dir=configs", "-cn", "mine", "method=pixel_teacher"], "pixel_teacher", 6),
    ],
)
def test_salt_is_the_default_that_every_other_way_to_name_a_method_replaces(
    salt: Typed, configs: Path, arguments: list[str], method: str, seed: int
) -> None:
    salt("train", *arguments, *QUIET)
    (job,) = salt.jobs
    assert (job.method.name, job.seed) == (method, seed)
    load_config(job)


def test_without_the_verb_the_same_is_trained_as_processes_of_ddp_are_started(
    salt: Typed, configs: Path
) -> None:
    salt("--config-dir", "configs", "+experiment=small", *QUIET)
    (job,) = salt.jobs
    assert job.method.name == "vjepa"


def test_a_multirun_trains_each_combination(salt: Typed, tmp_path: Path) -> None:
    salt("train", "-m", "method=salt,vjepa", "seed=1,2", "hydra.sweep.dir=runs", *QUIET)
    found = [(job.method.name, job.seed) for job in salt.jobs]
    assert found == [("salt", 1), ("salt", 2), ("vjepa", 1), ("vjepa", 2)]
    assert (tmp_path / "runs" / "3").is_dir()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--info", "searchpath"], "train_config"),
        (["--help"], "method: finetune, levjepa, pixel_teacher, salt, videomae, vjepa, vjepa2"),
        (["--shell-completion", "query=bash"], "method=vjepa method=vjepa2"),
    ],
)
def test_options_of_hydra_that_only_show(
    salt: Typed, capsys: pytest.CaptureFixture[str], arguments: list[str], shown: str
) -> None:
    salt.monkeypatch.setenv("COMP_LINE", "salt train method=vj")
    with contextlib.suppress(SystemExit):
        salt("train", *arguments)
    assert shown in capsys.readouterr().out
    assert salt.jobs == []


@settings(deadline=None, derandomize=True)
@given(
    st.text(st.sampled_from(" ab1=,#()[]{}'\"\\$:~!&;*?é視\t.-+/"), min_size=1, max_size=9).filter(
        lambda text: text != "???"  # OmegaConf's word for a missing value
    )
)
def test_quoted_text_is_that_text_in_hydra(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"checkpoint={quoted(text)}"])
    assert OmegaConf.create({"checkpoint": override.value()}).checkpoint == text


def _error(salt: Typed, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        salt(*arguments)
    assert ended.value.code == 1
    assert salt.jobs == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/data/my videos (1)",
        "/data/a=b",
        "/data/a#1, b",
        "/data/it's",
        '/data/15" screen',
        "/data/vidéos/視",
        "/data/{a}:[b]",
        "videos(1)",
        "~/videos",
    ],
)
def test_a_path_that_hydra_cannot_read_is_shown_with_the_quotes_that_work(
    salt: Typed, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    for words in ([f"input_dir={path}"], f"input_dir={path}".split(" ")):
        line = _error(salt, capsys, "train", *words)
        assert line.startswith(f"error: input_dir={path}: ")
        (suggested,) = shlex.split(line.partition("quote it: ")[2])  # as a shell reads it
        salt("train", suggested, *QUIET)
        assert salt.jobs.pop().input_dir == path


def test_a_list_of_such_paths_is_quoted_one_by_one(
    salt: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _error(salt, capsys, "train", "input_dir=[/a (1), /b]")
    (suggested,) = shlex.split(line.partition("quote it: ")[2])
    salt("train", suggested, *QUIET)
    assert salt.jobs[0].input_dir == ["/a (1)", "/b"]


def test_a_word_alone_is_no_override(salt: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    line = _error(salt, capsys, "train", "/data/videos")
    assert line == "error: '/data/videos': expected key=value, e.g. input_dir=VIDEOS"


def test_commas_are_a_sweep_in_a_multirun(salt: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert "input_dir=[a,b] for a list" in _error(salt, capsys, "train", "input_dir=a,b")
    salt("train", "-m", "input_dir=a,b", "hydra.sweep.dir=runs", *QUIET)
    assert [job.input_dir for job in salt.jobs] == ["a", "b"]


def test_compare_and_launch_show_the_quotes_that_work_too(
    salt: Typed, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for command in (["compare", "demo"], ["launch", "teacher_student"]):
        line = _error(salt, capsys, *command, "overrides=[input_dir=/a (1)]", "--dry-run")
        suggested = line.partition("quote it: ")[2]
        assert json.loads(suggested) == 'input_dir="/a (1)"'
        assert "is no YAML" in _error(salt, capsys, *command, "overrides=[a: b: c", "--dry-run")
    salt("launch", "teacher_student", f"overrides=[{suggested}]", "--dry-run")
    assert "elements" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["salt", "vjepa", "vjepa2", "videomae", "pixel_teacher"])
def test_the_printed_rate_is_scaled_for_the_batch_that_a_run_has(method: str) -> None:
    def line(*overrides: str, clips: int) -> str | None:
        config = load_config(compose([f"method={method}", *overrides]))
        return rate_of_another_batch(config, clips)

    printed, scaled = ("5.25e-4", "4.6e-05") if method == "vjepa2" else ("6.25e-4", "5.5e-05")
    found = line("input_dir=VIDEOS", clips=24)
    assert found is not None
    assert found.startswith(f"optimizer.lr={printed} is printed for 3072 clips a step; ")
    assert "has 24." in found
    assert found.endswith(f"optimizer.lr={scaled}")
    assert line("input_dir=VIDEOS", clips=3072) is None
    assert line("input_dir=VIDEOS", "optimizer.lr=1e-4", clips=24) is None
    assert line("preset=demo", clips=16) is None  # the demo has a rate of its own


def test_a_run_counts_paths_from_where_the_command_was_given_and_tells_of_its_rate(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my videos").symlink_to(tiny_videos)
    Path("set.yaml").write_text("train: my videos\ntest: my videos\nclasses: 2\n")
    options = ["method=pixel_teacher", 'input_dir="my videos"', "trainer.max_steps=1"]
    options += ["method.probe=set.yaml", "method.probe_protocol=knn"]
    options += ["hydra.run.dir=run", "hydra.job.chdir=True"]
    small = [one for one in SMALL if not one.startswith("optimizer.lr")]
    monkeypatch.setattr(sys, "argv", ["salt", "train", *options, *small, *QUIET])
    cli.main()
    assert (tmp_path / "run" / "teacher" / "encoder.safetensors").is_file()
    used: Any = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert used.input_dir == str(tmp_path / "my videos")
    told = [line for line in capsys.readouterr().err.splitlines() if "printed for" in line]
    assert len(told) == 1
    assert f"this run has {used.method.global_batch_size}." in told[0]
