"""A finished run of version 0.1.0 loads, probes and is found finished.

`earlier_run/` holds its small files as they were written, and the names and shapes of its tensors;
weights are drawn from a seed, and fingerprints are those of these weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from salt_plugin.checkpoints import load_encoder, load_predictor, read_card
from salt_plugin.commands.probe import main as probe
from salt_plugin.config import compose
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run

FILES = Path(__file__).parent / "earlier_run"
# Of the first token, as version 0.1.0 gave them.
EXPECTED = [-0.03731650, 0.04691026, -0.06826436]
STEPS = ["trainer.max_steps=20", "method.teacher.max_steps=15", "trainer.gpus=0"]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "earlier"
    shutil.copytree(FILES, run_dir)
    shapes = json.loads((run_dir / "tensors.json").read_text())
    for stage, name in (("teacher", "encoder"), ("student", "encoder"), ("student", "predictor")):
        random = np.random.default_rng(1)
        weights = {
            key: torch.from_numpy(random.standard_normal(shape, np.float32) * np.float32(0.05))
            for key, shape in shapes[name].items()
        }
        save_file(weights, run_dir / stage / f"{name}.safetensors")
    return run_dir


def test_its_encoders_and_its_predictor_load(earlier: Path) -> None:
    encoder = load_encoder(earlier)
    assert read_card(earlier / "student" / "encoder.safetensors")["shape"]["name"] == "vit_nano"
    clip = torch.linspace(-1, 1, 3 * 8 * 32 * 32).reshape(1, 3, 8, 32, 32)
    features = encoder(clip)
    assert features.shape == (1, 64, 128)
    assert features[0, 0, :3].tolist() == pytest.approx(EXPECTED, abs=1e-5)
    load_encoder(earlier / "teacher" / "encoder.safetensors")
    assert load_predictor(earlier).predictor_proj.weight.shape == (128, 64)


def test_the_same_configuration_finds_it_finished(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(compose(["method=salt", "preset=demo", "method.probe=null", *STEPS]), earlier)
    assert [stage["steps"] for stage in summary["stages"]] == [15, 20]
    assert "salt in " in capsys.readouterr().out
    assert [row["step"] for row in read_metrics(earlier / "student" / "metrics.csv")] == [1, 2, 3]


def test_it_is_probed(earlier: Path, tiny_videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = ["--train", str(tiny_videos), "--test", str(tiny_videos), "--workers", "0"]
    probe([str(earlier), *lists, "--protocol", "knn", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["clip"]["size"] == 32
    assert 0 <= found["knn"]["accuracy"] <= 1


def test_it_is_a_teacher(earlier: Path, tiny_videos: Path, tmp_path: Path) -> None:
    given = ["method=salt", "preset=demo", f"input_dir={tiny_videos}", "method.probe=null"]
    steps = ["trainer.max_steps=1", "loader.batch_size=2", f"method.teacher.path={earlier}/teacher"]
    summary = run(compose([*given, *steps]), tmp_path / "run")
    assert summary["bill"]["parts"]["teacher_training"] == 63986466816
