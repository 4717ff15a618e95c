from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from salt_plugin import __version__, cli
from salt_plugin.data.demo import write_video

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
TINY = [
    "method.encoder=vit_nano",
    "method.clip.size=32",
    "method.clip.frames=4",
    "method.clip.step=1",
    "method.model.patch_size=8",
    "method.model.predictor.dim=24",
    "method.model.predictor.depth=1",
    "method.model.predictor.num_heads=2",
    "loader.batch_size=2",
    "loader.num_workers=0",
]


def command(
    *arguments: str | Path, cwd: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )


class Done(NamedTuple):
    status: int
    out: str
    err: str


Salt = Callable[..., Done]


@pytest.fixture
def salt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Salt:
    """Calls `salt` in this process, from an empty folder: to start another takes seconds."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["salt", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    monkeypatch.chdir(tmp_path)
    return call


def test_version_usage_and_unknown_verbs_need_no_torch(tmp_path: Path) -> None:
    version = command(SCRIPTS / "salt", "--version", cwd=tmp_path)
    assert version.stdout.strip() == __version__
    usage = command(SCRIPTS / "salt", cwd=tmp_path).stdout
    assert re.search(r"^  train +train a method", usage, re.MULTILINE)
    assert re.search(r"^  track +probe the", usage, re.MULTILINE)
    assert re.search(r"^  export +write weights", usage, re.MULTILINE)
    unknown = command(SCRIPTS / "salt", "trian", cwd=tmp_path)
    assert unknown.returncode == 1
    assert (
        unknown.stderr.strip()
        == "error: unknown verb 'trian'; choose one of train, data, probe, features, track, "
        "compare, flops, plan, doctor, launch, status, cancel, retry, export"
    )
    studies = ("launch", "status", "cancel", "retry")
    verbs = (
        "train",
        "probe",
        "features",
        "track",
        "compare",
        "flops",
        "plan",
        "doctor",
        *studies,
        "export",
        "data",
    )
    modules = ", ".join(["salt_plugin.cli", *(f"salt_plugin.commands.{verb}" for verb in verbs)])
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert command(sys.executable, "-c", code, cwd=tmp_path).returncode == 0


def test_export_tells_wrong_use_from_what_is_not_there(salt: Salt) -> None:
    shown = salt("export", "--help")
    assert shown.status == 0
    assert "usage: salt export" in shown.out
    wrong = salt("export", "run", "--format", "onnx")
    assert wrong.status == 2
    assert "usage: salt export" in wrong.err
    assert not wrong.out
    missing = salt("export", "run", "--format", "hf")
    assert missing.status == 1
    assert missing.err.startswith("error: run does not exist; expected an encoder file")
    assert len(missing.err.splitlines()) == 1


@pytest.mark.slow
def test_a_mistake_ends_in_one_line_and_status_one(tiny_videos: Path, tmp_path: Path) -> None:
    done = command(
        SCRIPTS / "lightly-ssl-train",
        "method=salt",
        f"input_dir={tiny_videos}",
        "method.clip.size=100",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: method.clip.size=100: not divisible by")


def test_an_error_of_a_loader_worker_is_one_line_too(tmp_path: Path, salt: Salt) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "0.mp4", np.zeros((8, 64, 64, 3), dtype=np.uint8), fps=8)
    for number in range(1, 200):
        (videos / f"{number}.mp4").write_text("no video")
    given = ["method=pixel_teacher", f"input_dir={videos}", "trainer.max_steps=20"]
    done = salt("train", *given, *TINY, "loader.num_workers=1")
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("error: 10 videos in a row cannot be read")


def test_a_run_that_diverges_ends_in_one_line_and_lists_its_files(
    tiny_videos: Path, tmp_path: Path, salt: Salt
) -> None:
    diverging = ["trainer.max_steps=30", "optimizer.lr=1e30", "method.max_nonfinite_steps=3"]
    given = ["method=pixel_teacher", f"input_dir={tiny_videos}", "hydra.run.dir=run"]
    done = salt("train", *given, *diverging, *TINY)
    assert done.status == 1
    message = done.err.splitlines()[-1]
    assert re.match(
        r"error: the loss is \w+ .* at step \d+, 3 such in a row: training has", message
    )
    listed = json.loads((tmp_path / "run" / "teacher" / "nonfinite.json").read_text())["steps"]
    assert len(listed) == 3
    assert all(path.startswith(str(tiny_videos)) for path in listed[-1]["paths"])
    assert listed[-1]["paths"][0] in message


@pytest.mark.release  # tests/versions installs the wheel, too
def test_the_wheel_trains_from_both_commands(tiny_videos: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    built = command(*build, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert not (site / "hydra_plugins" / "__init__.py").exists()

    common = ["method.teacher.max_steps=2", "trainer.max_steps=2", *TINY]
    # A relative input and run directory: both count from where the command is given.
    (tmp_path / "videos").symlink_to(tiny_videos)
    for script in (["lightly-ssl-train", "method=salt"], ["salt", "train"]):
        run_dir = tmp_path / f"run-{script[0]}"
        done = command(
            SCRIPTS / script[0],
            *script[1:],
            "input_dir=videos",
            f"hydra.run.dir=run-{script[0]}",
            *common,
            cwd=tmp_path,
            path=site,
        )
        assert done.returncode == 0, done.stderr
        assert (run_dir / "teacher" / "encoder.safetensors").is_file()
        assert (run_dir / "student" / "encoder.safetensors").is_file()
    where = "import salt_plugin.host as h; print(h.conf_folder())"
    found = command(sys.executable, "-c", where, cwd=tmp_path, path=site).stdout.strip()
    assert Path(found) == site / "salt_plugin" / "conf"
    plan = ["launch", "compare_flops", "cluster=gpu_node", "--dry-run"]
    done = command(SCRIPTS / "salt", *plan, cwd=tmp_path, path=site)
    assert "25 elements" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.release)],
)
def test_a_signal_ends_training_loudly_and_the_same_command_goes_on(
    stop: signal.Signals, status: int, tiny_videos: Path, tmp_path: Path
) -> None:
    arguments = [
        SCRIPTS / "salt",
        "train",
        "method=pixel_teacher",
        f"input_dir={tiny_videos}",
        "hydra.run.dir=run",
        "trainer.max_steps=150",
        "method.checkpoint.every_n_steps=5",
        *TINY,
    ]
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stderr=subprocess.PIPE,
    )
    checkpoint = tmp_path / "run" / "teacher" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    saved = torch.load(checkpoint, weights_only=True)["global_step"]
    told = errors.splitlines()[-1]
    assert told.startswith(f"saved at step {saved}; this goes on: {arguments[0].name} ")
    assert told.endswith(shlex.join(map(str, arguments[1:])))
    assert command(*arguments, cwd=tmp_path).returncode == 0
    assert (tmp_path / "run" / "teacher" / "encoder.safetensors").is_file()


@pytest.mark.slow
def test_probe_prints_one_line_of_json_and_its_progress_elsewhere(
    tiny_videos: Path, tmp_path: Path
) -> None:
    arguments = ["--train", tiny_videos, "--test", tiny_videos, "--protocol", "knn", "--json"]
    arguments += ["--size", "32", "--frames", "4", "--step", "1", "--views", "2x1"]
    arguments += ["--cache", tmp_path / "cache", "--control", "frozen", "--workers", "0"]
    done = command(SCRIPTS / "salt", "probe", "random:vit_nano", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"encoder", "clip", "random_weights", "leaks", "knn", "controls"}
    assert (found["knn"]["chance"], found["knn"]["n_test"]) == (0.5, 6)
    assert 0 <= found["knn"]["accuracy"] <= 1
    assert found["controls"]["frozen"]["knn"].keys() == found["knn"].keys()
    assert "features, test" in done.stderr


def test_probe_tells_wrong_use_from_what_is_not_there(salt: Salt) -> None:
    wrong = salt("probe", "run", "--views", "8")
    assert wrong.status == 2
    assert "expected SEGMENTSxCROPS, e.g. 8x3" in wrong.err
    missing = salt("probe", "run", "--data", "k40")
    assert missing.status == 1
    assert missing.err.splitlines()[-1].startswith("error: 'k40' is no data set to probe on")
