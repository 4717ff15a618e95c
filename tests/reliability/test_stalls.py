"""A loader that gives no batch ends the run with a reason, and never the last checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hanging import ORDER, TARGET, last_checkpoint
from small_run import TINY
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from salt_plugin.config import compose
from salt_plugin.data.loader import ClipLoader
from salt_plugin.errors import ConfigError, Interrupted, LoaderError, LostOthersError, SaltError
from salt_plugin.train import run

KEYS = [
    "method=pixel_teacher",
    *TINY,
    TARGET,
    "trainer.max_steps=8",
    "trainer.gpus=0",
    "method.checkpoint.every_n_steps=1",
    "method.probe=null",
]


def train(videos: Path, run_dir: Path, *overrides: str) -> None:
    run(compose([*KEYS, f"input_dir={videos}", "loader.num_workers=2", *overrides]), run_dir)


def saved_step(run_dir: Path) -> int:
    return int(torch.load(last_checkpoint(run_dir), weights_only=True)["global_step"])


def test_a_wait_for_a_batch_ends_names_workers_and_files_and_the_run_goes_on(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(multiprocessing.active_children())
    monkeypatch.setenv(ORDER, "sleep:4")
    with pytest.raises(LostOthersError) as error:
        train(tiny_videos, tmp_path, "method.data.stall=1", "method.data.timeout=null")
    assert error.value.exit_status == os.EX_TEMPFAIL
    message = str(error.value)
    assert "teacher: no batch has come for 1 s (method.data.stall)" in message
    found = re.findall(r"Worker (\d+) is alive, at (\S+\.mp4)\.", message)
    assert len(found) == 2
    assert all(Path(path).is_relative_to(tiny_videos) for _, path in found)
    assert not any(Path(f"/proc/{pid}").exists() for pid, _ in found)
    assert set(multiprocessing.active_children()) == before
    assert f"Saved at step {saved_step(tmp_path)}; the same configuration" in message
    assert saved_step(tmp_path) == 4

    monkeypatch.delenv(ORDER)
    train(tiny_videos, tmp_path, "method.data.stall=null")
    assert (tmp_path / "summary.json").is_file()


def test_nothing_is_said_to_go_on_where_nothing_is_saved(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ORDER, "sleep:0")
    with pytest.raises(SaltError, match="Nothing is saved yet") as error:
        train(tiny_videos, tmp_path, "method.data.stall=1", "method.data.timeout=null")
    assert error.value.exit_status == 1


def test_a_worker_that_is_killed_is_named_with_its_file(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ORDER, "kill:4")
    with pytest.raises(LostOthersError, match="a process that reads videos has ended") as error:
        train(tiny_videos, tmp_path)
    assert re.search(r"Worker \d+ was ended by SIGKILL .*, at \S+\.mp4\.", str(error.value))
    assert saved_step(tmp_path) > 0


def test_a_worker_that_is_killed_before_anything_is_saved_interrupts_the_run_too(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ORDER, "kill:0")
    with pytest.raises(LostOthersError, match=r"ended by SIGKILL .*\. Nothing is saved") as error:
        train(tiny_videos, tmp_path)
    assert error.value.exit_status == os.EX_TEMPFAIL


@pytest.mark.parametrize("torn", [ConnectionResetError(104, "Connection reset"), EOFError()])
def test_whatever_error_a_killed_worker_leaves_it_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, torn: Exception
) -> None:
    # As where a batch was announced whose worker died before it was handed over.
    loader = ClipLoader([0, 1], workers=1, stall=None, key="stall", batch_size=1)
    batches = iter(loader)
    monkeypatch.setattr(_BaseDataLoaderIter, "__next__", Mock(side_effect=torn))
    loader._processes[0].kill()
    with pytest.raises(LostOthersError, match=r"has ended. Worker \d+ was ended by SIGKILL"):
        next(batches)


def test_a_signal_during_a_stall_is_heeded_when_it_ends(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ORDER, "sleep:4")

    def ask() -> None:
        deadline = time.monotonic() + 60
        while not last_checkpoint(tmp_path).is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    keys = ("method.data.stall=3", "method.data.timeout=null", "method.checkpoint.every_n_steps=4")
    with pytest.raises(Interrupted, match="no batch has come for 3 s") as error:
        train(tiny_videos, tmp_path, *keys)
    asking.join()
    assert error.value.exit_status == os.EX_TEMPFAIL
    assert "Saved at step 4; " in str(error.value)


def probe_set(videos: Path, folder: Path, *lines: str) -> str:
    """Writes a set of a fast probe with one worker; returns its file."""
    given = folder / "set.yaml"
    fixed = ["frames: 4", "size: 32", "step: 1", "protocols: [knn]", "workers: 1"]
    lists = [f"train: {videos}", f"test: {videos}", f"cache: {folder / 'cache'}"]
    given.write_text("\n".join([*lists, *fixed, *lines]) + "\n")
    return str(given)


def test_a_probe_s_wait_ends_too(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from salt_plugin.commands.probe import main

    def hang(*_: Any) -> None:
        time.sleep(600)

    monkeypatch.setattr("salt_plugin.evaluation.views.open_video", hang)
    given = probe_set(tiny_videos, tmp_path, "stall: 1")
    with pytest.raises(LoaderError, match=r"no batch .* 1 s \(stall\). Worker \d+ is alive, at "):
        main(["random:vit_nano", "--data", given])


def test_a_probe_whose_worker_is_killed_ends_as_interrupted(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from salt_plugin.cli import main

    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("salt_plugin.evaluation.views.open_video", kill)
    given = probe_set(tiny_videos, tmp_path)
    monkeypatch.setattr(sys, "argv", ["salt", "probe", "random:vit_nano", "--data", given])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == os.EX_TEMPFAIL
    assert "error: a process that reads videos has ended" in capsys.readouterr().err


def test_a_wait_of_no_time_is_refused(tiny_videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method.data.stall=0: expected more than 0, or null"):
        train(tiny_videos, tmp_path, "method.data.stall=0")


@pytest.mark.slow
def test_a_second_signal_ends_a_wait_without_end_and_hanging_workers(
    tiny_videos: Path, tmp_path: Path
) -> None:
    never = ["method.data.timeout=null", "method.data.stall=null"]
    keys = [*KEYS, f"input_dir={tiny_videos}", *never, "loader.num_workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "salt_plugin.cli", "train", *keys, f"hydra.run.dir={tmp_path}"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), ORDER: "sleep:4"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "hanging\n":
            break
    _wait_for(lambda: last_checkpoint(tmp_path).is_file() and saved_step(tmp_path) == 4)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert len(children) >= 2
    _wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert saved_step(tmp_path) == 4


def _wait_for(holds: Any) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_end_of_a_worker_is_told_with_the_next_batch_and_not_amid_other_work() -> None:
    list(DataLoader([0, 1], num_workers=1))  # leaves torch's handler, which raises anywhere
    before = set(multiprocessing.active_children())
    batches = iter(ClipLoader([0] * 64, workers=1, stall=30, key="stall"))
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    worker.kill()
    time.sleep(1)
    with pytest.raises(LostOthersError, match="a process that reads videos has ended"):
        list(batches)
