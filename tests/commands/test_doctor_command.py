"""`salt doctor`: what it predicts, against the run itself and against a simulated one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import TINY

from salt_plugin.commands.doctor import main
from salt_plugin.config import RunConfig
from salt_plugin.config.planning import load_alone
from salt_plugin.errors import ConfigError
from salt_plugin.methods import PixelTeacher
from salt_plugin.training import doctor
from salt_plugin.training.largest_batch import largest_batch, last_stage


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "LOADER", 0.2)
    monkeypatch.chdir(tmp_path)


def overrides(videos: Path, *more: str) -> list[str]:
    return [f"input_dir={videos}", *TINY, "trainer.max_steps=4000", "trainer.max_epochs=-1", *more]


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    main([*arguments, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.release
def test_a_run_is_measured_and_nothing_is_left(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = overrides(tiny_videos, "method=pixel_teacher")
    found = examined(capsys, *given, "--seconds", "1")
    (stage,) = found["stages"]
    assert (stage["name"], stage["steps"], stage["clips"]) == ("teacher", 4000, 8000)
    assert stage["seconds"] == pytest.approx(8000 / stage["clips_per_second"])
    assert stage["step"] >= stage["clips_per_second"] > 1
    assert stage["measured"] >= 2
    assert min(stage["loader"], stage["peak_mib"]) > 1
    assert found["largest_batch"] == found["clips_a_step"] == 2  # on CPUs, by the memory model
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_student_is_measured_behind_a_teacher_of_one_step(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"input_dir={tiny_videos}", *TINY, "compute.budget=1e13", "method.data.cache=true"]
    found = examined(capsys, *given, "--seconds", "2")
    assert [stage["name"] for stage in found["stages"]] == ["teacher", "student"]
    assert found["flops"] == pytest.approx(1e13, rel=0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_fails_says_why(tiny_videos: Path) -> None:
    given = overrides(tiny_videos, "method=pixel_teacher", "trainer.max_steps=2")
    with pytest.raises(ConfigError, match="the teacher made 2 steps in 1 s: expected 3 or more"):
        main([*given, "--seconds", "1"])


@pytest.mark.parametrize(("workers", "cache"), [(0, False), (0, True), (1, True)])
def test_the_time_of_a_run_is_that_of_its_simulation(
    tiny_videos: Path, monkeypatch: pytest.MonkeyPatch, workers: int, cache: bool
) -> None:
    """Six videos; a clip takes 3 s to decode, 0.5 s once kept, and a step 1 s a clip."""
    given = overrides(tiny_videos, "method=pixel_teacher", f"method.data.cache={cache}")
    config = load_alone([*given, f"loader.num_workers={workers}", "trainer.max_steps=30"])
    run = doctor.prepared(config)
    (stage,) = run.plan.stages
    rows, seconds, flops = [], 0.0, 0
    for step in range(stage.steps):
        read = 2 * (0.5 if cache and step >= 3 else 3.0)
        wait = read if workers == 0 else max(0.0, read - 2.0)
        seconds, flops = seconds + wait + 2.0, flops + sum(stage.pricing.price(step).flops.values())
        rows.append({"seconds": seconds, "data_seconds": wait, "flops": flops})
        rows[-1] |= {"clips": 2 * step + 2, "peak_memory_mib": 1}
    measured = rows if not cache else rows[:10]
    monkeypatch.setattr(doctor, "_first_steps", lambda *_: (1.0, measured))
    monkeypatch.setattr(doctor, "loader_rate", lambda *_, kept: 2.0 if kept else 1 / 3)
    (found,) = doctor.examine(given, run, 1.0)
    assert found.seconds == pytest.approx(seconds, rel=0.05)
    assert found.step == pytest.approx(1.0)


def test_the_largest_batch_is_found_where_memory_ends(
    tiny_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: RunConfig = load_alone(overrides(tiny_videos, "method=salt"))
    run = doctor.prepared(config)
    salt = type(last_stage(run).method)
    forward: Callable[..., Any] = salt.forward

    def limited(self: PixelTeacher, batch: Any) -> Any:
        if len(batch.clips) > 5:
            raise torch.OutOfMemoryError
        return forward(self, batch)

    monkeypatch.setattr(salt, "forward", limited)
    assert largest_batch(run, torch.device("cpu")) == 4
