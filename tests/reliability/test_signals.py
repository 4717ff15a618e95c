"""A run that is asked to stop saves, says so, and ends as if it had not been asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import wraps
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import Step, asked_to_stop, each_step, steps_that_take
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from small_run import TINY

import salt_plugin.train
from salt_plugin.config import compose
from salt_plugin.errors import ConfigError, Interrupted
from salt_plugin.job import train_job
from salt_plugin.stop_signals import STOP_SIGNALS
from salt_plugin.train import run
from salt_plugin.transforms import SALTTransform

SMALL = [*TINY, "loader.batch_size=4", "trainer.max_steps=4"]


def train(videos: Path, run_dir: Path, *overrides: str, method: str) -> dict[str, Any]:
    steps = ["method.teacher.max_steps=3"] if method == "salt" else []
    cfg = compose([f"method={method}", f"input_dir={videos}", *SMALL, *steps, *overrides])
    return run(cfg, run_dir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stage", "number", "status"),
    [
        ("salt", "teacher", signal.SIGUSR1, 75),
        ("salt", "student", signal.SIGTERM, 75),
        ("vjepa2", "student", signal.SIGUSR2, 75),
        ("pixel_teacher", "teacher", signal.SIGINT, 130),
    ],
)
def test_a_run_stopped_by_a_signal_saves_and_ends_as_if_it_had_not_been(
    tiny_videos: Path,
    tmp_path: Path,
    method: str,
    stage: str,
    number: signal.Signals,
    status: int,
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(tiny_videos, whole, method=method)
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    with (
        asked_to_stop(2, number, stage),
        pytest.raises(Interrupted, match="saved at step 2; the same configuration with") as stop,
    ):
        train(tiny_videos, stopped, method=method)
    assert stop.value.exit_status == status
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers
    assert outcome.saved_step(stopped / stage) == 2
    assert outcome.steps(stopped / stage) == [1, 2]

    train(tiny_videos, stopped, method=method)
    stages = ("teacher", "student") if method == "salt" else (stage,)
    outcome.require_same(whole, stopped, *stages)


def test_no_encoder_is_kept_of_the_step_that_a_signal_ends(
    tiny_videos: Path, tmp_path: Path
) -> None:
    keep = "method.encoders_every_n_steps=2"
    with asked_to_stop(3, signal.SIGTERM), pytest.raises(Interrupted, match="saved at step 3"):
        train(tiny_videos, tmp_path, keep, method="pixel_teacher")
    kept = {path.name for path in (tmp_path / "teacher" / "encoders").glob("*.safetensors")}
    assert kept == {"step-2.safetensors"}


def test_a_signal_before_training_is_not_ours(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @wraps(SALTTransform.__init__)
    def asked(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SALTTransform, "__init__", asked)  # made before anything is written
    with pytest.raises(KeyboardInterrupt):
        train(tiny_videos, tmp_path / "run", method="pixel_teacher")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_job_tells_by_its_exit_status_that_it_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    def stopped(*_: Any) -> None:
        raise Interrupted("saved at step 7; the same command goes on", number)

    monkeypatch.setattr(salt_plugin.train, "run", stopped)
    hydra = OmegaConf.create({"runtime": {"output_dir": str(tmp_path)}, "mode": RunMode.RUN})
    monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: hydra))
    with pytest.raises(SystemExit) as ended:
        train_job(OmegaConf.create({}))
    assert ended.value.code == status
    assert capsys.readouterr().err == "saved at step 7; the same command goes on\n"


LISTEN = """
import sys, time
from salt_plugin.stop_signals import StopSignals
signals = StopSignals()
signals.listen()
print("listening", flush=True)
while not signals.received:
    time.sleep(0.01)
print("asked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("first", "second", "wait", "ends"),
    [
        (signal.SIGTERM, signal.SIGTERM, 1.1, True),
        (signal.SIGINT, signal.SIGINT, 1.1, True),
        (signal.SIGTERM, signal.SIGINT, 1.1, True),
        (signal.SIGTERM, signal.SIGTERM, 0.0, False),
        (signal.SIGTERM, signal.SIGUSR2, 1.1, False),
    ],
)
def test_a_second_request_ends_a_process_at_once(
    first: signal.Signals, second: signal.Signals, wait: float, ends: bool
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(first)
    assert process.stdout.readline() == "asked\n"
    time.sleep(wait)
    process.send_signal(second)
    if ends:
        assert process.wait(timeout=10) == -second
    else:
        time.sleep(0.1)
        process.communicate("\n", timeout=10)
        assert process.returncode == 0


WAIT_IN_C = """
import ctypes
from salt_plugin.stop_signals import StopSignals
StopSignals().listen()
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
print("listening", flush=True)
lock(mutex)
lock(mutex)
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGUSR2])
def test_a_second_request_ends_a_process_that_never_comes_back_to_python(
    first: signal.Signals,
) -> None:
    command = [sys.executable, "-c", WAIT_IN_C]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.send_signal(first)
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(first)
        assert process.wait(timeout=10) == -first


def _children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(child) for child in listed.split()}


def test_loader_workers_leave_signals_to_the_process_that_trains(
    tiny_videos: Path, tmp_path: Path
) -> None:
    workers: list[int] = []

    def ask(now: Step) -> None:
        if now.number == 2:
            workers.extend(_children() - before)
            # From a process of its own, as a terminal's or a cluster's would come.
            for number in STOP_SIGNALS:
                command = f"kill -{int(number)} {' '.join(map(str, workers))}"
                subprocess.run(["sh", "-c", command], check=True)

    before = _children()
    with each_step(ask):
        train(tiny_videos, tmp_path, "loader.num_workers=2", method="pixel_teacher")
    assert len(workers) >= 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize(("minutes", "expected"), [(3, [5, 10, 12]), (0, [12])])
def test_a_checkpoint_is_written_every_few_minutes_whatever_a_step_takes(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: int,
    expected: list[int],
) -> None:
    # A step takes 40 s: after 3 minutes is after the fifth, then after the tenth.
    save, saved = torch.save, []

    def noted(content: Any, *given: Any, **named: Any) -> None:
        saved.append(content["global_step"])
        save(content, *given, **named)

    monkeypatch.setattr(torch, "save", noted)
    given = [f"method.checkpoint.every_minutes={minutes}", "trainer.max_steps=12"]
    with steps_that_take(40.0):
        train(tiny_videos, tmp_path, *given, method="pixel_teacher")
    assert saved == expected


def test_minutes_below_zero_are_refused(tiny_videos: Path, tmp_path: Path) -> None:
    minutes = "method.checkpoint.every_minutes=-1"
    with pytest.raises(ConfigError, match=r"every_minutes=-1: expected 0 or null"):
        train(tiny_videos, tmp_path / "run", minutes, method="pixel_teacher")
