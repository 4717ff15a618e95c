"""`preset=demo`, and what is trained on where there is neither a preset nor an `input_dir`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from salt_plugin import cli
from salt_plugin.config import compose, load_config
from salt_plugin.config.planning import compose_alone
from salt_plugin.data.stream import training_videos
from salt_plugin.run_directory import flat

METHODS = ("levjepa", "pixel_teacher", "salt", "videomae", "vjepa", "vjepa2")
STEPS = {"pixel_teacher": 1000}
CLIP_GRAD = {"vjepa": 10.0, "vjepa2": 0.0}
DEMO = {
    "input_dir": "demo:train.csv",
    "loader.batch_size": 16,
    "loader.num_workers": 0,
    "trainer.precision": "32",
    "optimizer.lr": 2e-3,
    "method.encoder": "vit_nano",
    "method.clip.frames": 8,
    "method.clip.size": 32,
    "method.clip.step": 1,
    "method.clip.fps": None,
    "method.model.patch_size": 8,
    "method.model.init_std": 0.057,
    "method.model.predictor.dim": 64,
    "method.model.predictor.depth": 2,
    "method.model.predictor.num_heads": 2,
    "method.model.predictor.init_std": 0.08,
    "method.transform.scale": [1.0, 1.0],
    "method.transform.hflip": 0.0,
    "method.data.cache": True,
    "method.optim.clip_grad": 1.0,
    "method.checkpoint.every_n_steps": 500,
    "method.probe": "demo",
}


def _found(config: Any, key: str) -> Any:
    return reduce(
        lambda node, part: node[part] if isinstance(node, dict) else getattr(node, part),
        key.split("."),
        config,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("composed", [compose, compose_alone])
def test_the_demo_has_these_values_and_the_methods_own_for_the_rest(
    method: str, composed: Any
) -> None:
    demo = load_config(composed(["preset=demo", f"method={method}"]))  # in whatever order
    expected = dict(DEMO)
    expected["method.default_steps"] = expected["trainer.max_steps"] = STEPS.get(method, 2500)
    if method == "salt":
        expected |= {"method.teacher.max_steps": 1000, "method.teacher.encoder": "vit_nano"}
    if method in CLIP_GRAD:  # as its source does
        expected["method.optim.clip_grad"] = CLIP_GRAD[method]
    found = {key: _found(demo, key) for key in expected}
    found["trainer.precision"] = str(found["trainer.precision"])
    assert found == expected
    own = flat(asdict(load_config(composed([f"method={method}"]))))
    expected.pop("method.clip.fps")
    if method in CLIP_GRAD:
        expected.pop("method.optim.clip_grad")
    changed = {key for key, value in flat(asdict(demo)).items() if value != own[key]}
    if method == "levjepa":  # has frames by time and no flip, and tells its views the patch
        changed |= {"method.transform.hflip"}
        changed -= {"method.masks.patch_size", "method.transform.patch_size", "method.clip.fps"}
    assert changed == expected.keys()


def test_the_command_line_goes_before_the_preset_and_the_preset_before_the_method() -> None:
    given = ["input_dir=VIDEOS", "method.clip.frames=4", "method.teacher.max_steps=7"]
    config = load_config(compose([*given, "preset=demo", "method=salt"]))
    assert config.input_dir == "VIDEOS"
    assert (config.method.clip.frames, config.method.teacher.max_steps) == (4, 7)
    assert (config.method.encoder, config.trainer.max_steps) == ("vit_nano", 2500)


def test_no_default_depends_on_the_input() -> None:
    for method in METHODS:
        without, given = (
            OmegaConf.to_container(compose([f"method={method}", *videos]), resolve=True)
            for videos in ([], ["input_dir=VIDEOS"])
        )
        assert isinstance(without, dict)
        assert {**without, "input_dir": "VIDEOS"} == given


COMMANDS = {
    "train": ["train", "hydra.run.dir=run"],
    "compare": ["compare", "demo", "overrides=[]", "--out", "run"],
    "launch": ["launch", "teacher_student", "overrides=[]", "--out", "run"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_training_without_input_names_both_ways_and_writes_nothing(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["salt", *COMMANDS[command]])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert "input_dir is empty" in line
    assert "input_dir=VIDEOS" in line
    assert "preset=demo" in line
    left = {path.name for path in (tmp_path / "run").glob("*")}
    assert left <= {".hydra", "host.log"}  # what Hydra has written before it calls anything


@pytest.mark.parametrize("command", ["compare", "launch"])
def test_a_misspelt_preset_of_a_study_is_named(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [one.replace("[]", "[preset=dmeo]") for one in COMMANDS[command]]
    monkeypatch.setattr(sys, "argv", ["salt", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    assert "preset=dmeo: no such preset; did you mean 'demo'?" in capsys.readouterr().err


def test_lists_of_the_demo_stand_beside_paths_and_a_path_may_look_like_one(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "demo:train.csv").symlink_to(tiny_videos)
    overrides = ["method=pixel_teacher", "preset=demo"]
    overrides += ["method.data.demo.train=2", "method.data.demo.test=1"]
    for given, videos in (
        ("demo:train.csv", 2),
        ("[demo:train.csv,./demo:train.csv]", 2 + 6),
        ("./demo:train.csv", 6),
    ):
        config = load_config(compose([*overrides, f"input_dir={given}"]))
        assert len(training_videos(config).paths) == videos
