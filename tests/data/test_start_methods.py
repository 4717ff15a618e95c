"""Loader workers, however they are started: they read, outlive others' signals, and end in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from loader_process import as_they_are
from small_run import TINY

from salt_plugin.checkpoints import read_card
from salt_plugin.cli import _main as salt
from salt_plugin.config import compose, load_config
from salt_plugin.data.stream import training_loader, training_videos
from salt_plugin.files import hold

SCRIPT = Path(__file__).with_name("loader_process.py")
STEPS = 8


@pytest.fixture(scope="module")
def expected(tiny_videos: Path) -> list[str]:
    """What the batches sum to, read in one process."""
    config = load_config(compose(["method=salt", *TINY, f"input_dir={tiny_videos}"]))
    videos = training_videos(config)
    world = {"start_step": 0, "rank": 0, "world_size": 1}
    loader = training_loader(config, videos, as_they_are, list, seed=0, total_steps=STEPS, **world)
    return [str([float(item.clip.double().sum()) for item in batch]) for batch in loader]


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("forkserver", marks=pytest.mark.slow),
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("fork", marks=pytest.mark.slow),
    ],
)
def test_workers_ignore_signals_and_end_with_the_process_that_trains(
    tiny_videos: Path, tmp_path: Path, expected: list[str], method: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("OMP_NUM_THREADS", None)  # BLAS has threads of its own in spawned workers then
    process = subprocess.Popen(
        [sys.executable, SCRIPT, tiny_videos, tmp_path, method],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, told = process.stdin, process.stdout

    def ask(command: str) -> str:
        print(command, file=asked, flush=True)
        return told.readline().strip()

    limit = threading.Timer(300, process.kill)
    limit.start()
    try:
        workers = [int(pid) for pid in told.readline().split()]
        # While workers start, and once they have: what a cluster sends to all processes.
        for step, batch in enumerate(expected):
            assert ask("next") == batch, step
            if step in (0, 4):
                os.killpg(process.pid, signal.SIGTERM)
                for worker in workers:
                    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
                        os.kill(worker, number)
        assert hold(tmp_path) is None
        assert ask("release") == "released"
        assert hold(tmp_path) is not None  # no worker has it open
        assert all(map(_lives, workers))
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        told.close()
        asked.close()
    deadline = time.monotonic() + 20
    while any(map(_lives, workers)):
        assert time.monotonic() < deadline, "a worker outlives the process that trains"
        time.sleep(0.05)


@pytest.mark.slow
def test_commands_train_and_probe_with_spawned_workers(
    tiny_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prints = []
    for call, workers in ((salt, 0), (_spawning, 1)):
        out = tmp_path / str(workers)
        train = ["train", "method=pixel_teacher", *TINY, f"input_dir={tiny_videos}"]
        steps = ["trainer.max_steps=3", f"loader.num_workers={workers}", f"hydra.run.dir={out}"]
        call([*train, *steps])
        encoder = out / "teacher" / "encoder.safetensors"
        probe = ["probe", str(encoder), f"--train={tiny_videos}", f"--test={tiny_videos}"]
        clip = ["--frames=4", "--size=32", "--step=1", "--protocol=knn", f"--cache={out}", "--json"]
        capsys.readouterr()
        call([*probe, *clip, f"--workers={workers}"])
        score = json.loads(capsys.readouterr().out.splitlines()[-1])
        prints.append((read_card(encoder)["fingerprint"], score["knn"]))
    assert prints[0] == prints[1]


def _spawning(arguments: list[str]) -> None:
    code = (
        "import multiprocessing; multiprocessing.set_start_method('spawn'); "
        "from salt_plugin.cli import main; main()"
    )
    call = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout, end="")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
