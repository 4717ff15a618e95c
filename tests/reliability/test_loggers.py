"""Lightning's loggers get what `metrics.csv` has, once, however often a run goes on."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path
from typing import Any

import outcome
import pytest
import wandb
import yaml
from faults import power_failure
from small_run import TINY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from salt_plugin.config import compose, load_config
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.training import loggers

Points = dict[str, list[tuple[int, float]]]


def train(videos: Path, run_dir: Path, *overrides: str) -> Path:
    given = ["method=vjepa", *TINY, f"input_dir={videos}", "trainer.max_steps=5"]
    run(compose([*given, "method.checkpoint.every_n_steps=2", *overrides]), run_dir)
    return run_dir / "student"


def expected(stage: Path) -> Points:
    """Returns the values of each column with their steps."""
    found: Points = {}
    for row in read_metrics(stage / "metrics.csv"):
        for name in row.keys() - {"step"}:
            found.setdefault(name, []).append((int(row["step"]), row[name]))
    return found


def in_csv(stage: Path) -> Points:
    found: Points = {}
    with (stage / "csv" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name in row.keys() - {"step"}:
                if row[name]:
                    found.setdefault(name, []).append((int(row["step"]), float(row[name])))
    return found


def in_tensorboard(stage: Path) -> Points:
    events = EventAccumulator(str(stage / "tensorboard"), {"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "hp_metric"]
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}


def in_wandb(stage: Path) -> tuple[Points, list[dict[str, Any]]]:
    """Returns the history that `wandb sync` would send, in its order, and each run's settings."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Points = {}
    runs = []
    for file in sorted(stage.glob("wandb/offline-run-*/run-*.wandb")):
        for content in records(file.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("run"):
                runs.append({"id": record.run.run_id, "config": {}})
            for item in record.config.update:
                runs[-1]["config"][item.key] = json.loads(item.value_json)
            if not record.HasField("history"):
                continue
            items = {
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
            }
            assert items.pop("trainer/global_step") == items["_step"]
            for name in items.keys() - {"_step", "_runtime", "_timestamp"}:
                found.setdefault(name, []).append((items["_step"], items[name]))
    return found, runs


def records(content: bytes) -> list[bytes]:
    """Returns the records of a file in LevelDB's log format, whose blocks have 32 KiB."""
    found, parts, at = [], [], 7  # after wandb's own header, a part of the first block
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # the whole, or the last part
            found.append(b"".join(parts))
            parts = []
    return found


def same(found: Points, wanted: Points) -> None:
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points]
        assert [value for _, value in found[name]] == pytest.approx([v for _, v in points])


def test_all_three_have_every_column_once_after_kills(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("salt_plugin.training.metrics.FLUSH_EVERY", 1)
    given = (tiny_videos, tmp_path, "trainer.logger=[tensorboard,csv,wandb]")
    with power_failure(4):  # step 3 is written, and made again
        train(*given)
    with power_failure(5):
        train(*given)
    stage = train(*given)
    wanted = expected(stage)
    assert [step for step, _ in wanted["loss"]] == [1, 2, 3, 4, 5]
    assert "target_rank" in wanted
    same(in_tensorboard(stage), wanted)
    same(in_csv(stage), wanted)
    found, runs = in_wandb(stage)
    assert [step for step, _ in found["seconds"]] == [1, 2, 3, 4, 5]
    for name in outcome.TIMES:  # of step 3 those of the first time
        del found[name], wanted[name]
    same(found, wanted)
    assert len({one["id"] for one in runs}) == 1
    for config in (
        yaml.safe_load((stage / "csv" / "hparams.yaml").read_text()),
        yaml.safe_load((stage / "tensorboard" / "hparams.yaml").read_text()),
        runs[0]["config"],
    ):
        assert config["method"]["encoder"] == "vit_nano"
        assert config["trainer"]["max_steps"] == 5


def test_a_logger_that_comes_later_gets_what_was_before(tiny_videos: Path, tmp_path: Path) -> None:
    with power_failure(4):
        train(tiny_videos, tmp_path, "trainer.logger=[]")
    assert not (tmp_path / "student" / "tensorboard").exists()
    stage = train(tiny_videos, tmp_path, "trainer.logger=tensorboard")
    same(in_tensorboard(stage), expected(stage))


def test_what_is_no_logger_or_not_installed_is_one_clear_error(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (
        r"^trainer\.logger=tensorbord: expected tensorboard, csv or wandb, or a list of these"
    )
    with pytest.raises(ConfigError, match=expected):
        load_config(compose(["method=salt", "trainer.logger=tensorbord"]))
    with pytest.raises(ConfigError, match=r"^trainer\.logger=\['csv', 'wandbb'\]: expected tens"):
        load_config(compose(["method=salt", "trainer.logger=[csv,wandbb]"]))
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"wandb is not installed; pip install 'salt-plugin\[wan"):
        train(tiny_videos, tmp_path / "run", "trainer.logger=wandb")
    assert not (tmp_path / "run").exists()


def test_wandb_that_lets_nobody_in_is_one_clear_error(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.teardown()  # it reads the environment once
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "no key")
    with pytest.raises(ConfigError, match=r"^trainer\.logger=wandb: .* set WANDB_MODE=offline"):
        train(tiny_videos, tmp_path, "trainer.logger=wandb")
    wandb.teardown()
