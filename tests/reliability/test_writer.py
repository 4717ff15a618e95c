"""Checkpoints are what they were when they were asked for, and never keep training waiting."""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import Step, each_step, power_failure
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.train import run

SMALL = [*TINY, "method=pixel_teacher", "trainer.max_steps=5"]


def train(videos: Path, run_dir: Path, every: int = 2) -> None:
    keys = [f"input_dir={videos}", f"method.checkpoint.every_n_steps={every}"]
    run(compose([*SMALL, *keys]), run_dir)


@pytest.fixture(scope="module")
def finished(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "teacher"
    train(tiny_videos, run_dir)
    return run_dir


def test_training_goes_on_while_a_checkpoint_is_written(
    finished: Path, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, save, last = threading.Event(), torch.save, tmp_path / "teacher/checkpoints/last.ckpt"

    def waiting(*given: Any, **named: Any) -> None:
        assert go.wait(60)
        save(*given, **named)

    def step(now: Step) -> None:
        if now.number == 4:  # weights and moments have moved on by a step
            assert not last.exists()
            go.set()
            deadline = time.monotonic() + 60
            while not last.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    monkeypatch.setattr(torch, "save", waiting)
    with power_failure(4), each_step(step):
        train(tiny_videos, tmp_path)
    monkeypatch.undo()
    assert outcome.saved_step(tmp_path / "teacher") == 2
    train(tiny_videos, tmp_path)
    outcome.require_same(finished, tmp_path, "teacher")


def test_one_is_written_at_a_time_and_two_are_kept(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, running, most, saved = torch.save, [0], [0], []

    def slow(content: Any, *given: Any, **named: Any) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.1)
        save(content, *given, **named)
        saved.append(content["global_step"])
        running[0] -= 1

    monkeypatch.setattr(torch, "save", slow)
    train(tiny_videos, tmp_path, every=1)
    assert most == [1]
    assert saved == [1, 2, 3, 4, 5]
    stage = tmp_path / "teacher"
    found = {
        file.name: outcome.saved_step(stage, file.name)
        for file in (stage / "checkpoints").iterdir()
    }
    assert found == {"last.ckpt": 5, "previous.ckpt": 4}


def test_what_cannot_be_written_is_told_once_and_the_last_one_stays(
    finished: Path, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(content: Any, *given: Any, **named: Any) -> None:
        if content["global_step"] == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, *given, **named)

    monkeypatch.setattr(torch, "save", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with power_failure(4):
            train(tiny_videos, tmp_path, every=1)
        stage = tmp_path / "teacher"
        assert outcome.saved_step(stage) == 2
        assert not list(stage.rglob("*.tmp"))
        train(tiny_videos, tmp_path, every=1)
    told = [text for one in caught if "could not be written" in (text := str(one.message))]
    assert len(told) == 2  # by each of both
    for text in told:
        assert "the checkpoint of step 3 could not be written" in text
        assert "No space left on device" in text
        assert "up to step 2 is kept" in text
    outcome.require_same(finished, tmp_path, "teacher")


def test_what_a_resume_counts_on_is_on_the_disk_before_a_checkpoint(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, replace = os.fsync, os.replace
    synced: set[str] = set()
    before: list[set[str]] = []

    def noted(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def renamed(source: Any, target: Any) -> None:
        if Path(target).name == "last.ckpt":
            before.append({*synced, "source"} if Path(source).name in synced else {*synced})
            synced.clear()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    train(tiny_videos, tmp_path)
    assert len(before) == 3
    assert all({"source", "metrics.csv", "skipped.csv"} <= names for names in before)
