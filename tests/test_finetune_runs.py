"""Fine-tuning as whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import outcome
import pytest
import torch
from faults import power_failure
from motion import MEAN, SHAPE, SHORT, write_encoder, write_motion
from safetensors.torch import load_file

from salt_plugin import load_encoder
from salt_plugin.checkpoints import find_encoder, load_head, read_card
from salt_plugin.commands.plan import main as plan
from salt_plugin.compute.cost import encoder_forward, head_forward
from salt_plugin.config import compose, probe_config, read_yaml
from salt_plugin.errors import CheckpointError, ConfigError, DataError, SaltError
from salt_plugin.evaluation.views import ViewDataset
from salt_plugin.run_directory import read_metrics
from salt_plugin.shapes import HeadShape
from salt_plugin.train import run

COMMAND = Path(sys.executable).parent / "lightly-ssl-train"


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_motion(tmp_path_factory.mktemp("motion"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("start"))


def train(motion: Path, encoder: Path | str, run_dir: Path, *overrides: str) -> dict[str, Any]:
    lists = [f"input_dir={motion / 'train.csv'}", f"method.val={motion / 'val.csv'}"]
    return run(compose([*SHORT, *lists, f"checkpoint={encoder}", *overrides]), run_dir)


@pytest.fixture(scope="module")
def finished(motion: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    views = ["method.test_segments=2", "method.test_crops=1"]
    train(motion, encoder, run_dir, f"method.test={motion / 'test.csv'}", *views)
    return run_dir


def test_clips_shape_and_classes_are_those_of_the_files(finished: Path) -> None:
    method = read_yaml(finished / "config.yaml")["method"]
    assert method["clip"] == {"frames": 6, "size": 32, "step": 1, "fps": None}
    assert (method["encoder"], method["model"]["patch_size"]) == ("vit_nano", 8)
    assert (method["classes"], method["transform"]["mean"]) == (2, MEAN)
    card = read_card(find_encoder(finished))
    assert card["method"] == "finetune"
    assert card["input"]["mean"] == MEAN
    assert card["compute"]["bill"]["parts"]["initialisation"] == 1000
    assert list(card["compute"]["flops"]) == ["encoder", "head"]


def test_encoder_and_head_predict_what_was_tested(finished: Path, motion: Path) -> None:
    accuracy = json.loads((finished / "summary.json").read_text())["accuracy"]
    model, head = load_encoder(finished), load_head(finished)
    assert head.names == ["down", "up"]
    rows = (finished / "student" / "test.csv").read_text().splitlines()[1:]
    paths, labels, predicted = zip(*(row.split(",") for row in rows), strict=True)
    clip = {"frames": 6, "size": 32, "step": 1, "segments": 2}
    views = ViewDataset(list(paths), probe_config(**clip), MEAN, [0.2] * 3)
    for index, name in enumerate(predicted):
        with torch.no_grad():
            shares = head(model(views[index])).softmax(-1).mean(0)
        assert head.names[int(shares.argmax())] == name
    right = [a == b for a, b in zip(labels, predicted, strict=True)]
    assert accuracy["test"]["accuracy"] == pytest.approx(sum(right) / 6)
    assert accuracy["test"]["segments"] == 2


def test_the_best_weights_on_the_validation_list_are_kept(finished: Path) -> None:
    stage = finished / "student"
    rows = read_metrics(stage / "metrics.csv")
    checked = {row["step"]: row["val_accuracy"] for row in rows if "val_accuracy" in row}
    assert list(checked) == [4, 8, 12]  # once an epoch of 16 clips, and at the end
    best = torch.load(stage / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["accuracy"] == max([best["accuracy"], *checked.values()])
    for name in ("encoder", "head"):
        for key, value in load_file(stage / f"{name}.safetensors").items():
            assert torch.equal(value, best["state_dict"][f"{name}.{key}"])
    found = json.loads((stage / "accuracy.json").read_text())["val"]
    assert found["last"] == checked[12]
    assert found["best"] == {"step": best["global_step"], "accuracy": best["accuracy"]}


def test_evaluations_are_booked_apart(finished: Path) -> None:
    ledger = json.loads((finished / "student" / "compute.json").read_text())
    clip = encoder_forward(SHAPE, 48) + head_forward(SHAPE, HeadShape("time", 2, 3), 48)
    assert ledger["evaluation"]["flops"] == clip * (4 * 8 + 6 * 2)
    assert ledger["total_flops"] == 3 * clip * 12 * 4 == sum(ledger["flops"].values())


@pytest.mark.parametrize("step", [6, 9])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    finished: Path, motion: Path, encoder: Path, tmp_path: Path, step: int
) -> None:
    views = [f"method.test={motion / 'test.csv'}", "method.test_segments=2"]
    often = "method.checkpoint.every_n_steps=3"
    with power_failure(step):
        train(motion, encoder, tmp_path, *views, often)
    train(motion, encoder, tmp_path, *views, often)
    outcome.require_same(finished, tmp_path, "student")
    assert outcome.equal(*[outcome.checkpoint(root / "student") for root in (finished, tmp_path)])
    for name in ("accuracy.json", "test.csv", "head.json"):
        assert (finished / "student" / name).read_text() == (
            tmp_path / "student" / name
        ).read_text()


def test_it_learns_which_way_time_runs(motion: Path, tmp_path: Path) -> None:
    size = ["method.encoder=vit_nano", "method.model.patch_size=8", "method.model.init_std=0.057"]
    clip = ["method.clip.frames=6", "method.clip.size=32", "method.clip.step=1"]
    longer = ["trainer.max_epochs=12", "loader.batch_size=8", "method.model.drop_path=0"]
    summary = train(motion, "null", tmp_path, *size, *clip, *longer, "method.layer_decay=1")
    assert summary["accuracy"]["val"]["best"]["accuracy"] == 1.0
    assert "initialisation" not in summary["bill"]["parts"]


def test_a_warm_start_is_a_linear_probe(motion: Path, encoder: Path, tmp_path: Path) -> None:
    still = ["optimizer.lr=1e-12", "trainer.max_epochs=1", "method.mixup=0"]
    itself = f"method.val={motion / 'train.csv'}"
    with pytest.warns(UserWarning, match="16 of 16 videos of the list val are in the list train"):
        summary = train(motion, encoder, tmp_path, *still, itself, "method.warm_start=true")
    assert summary["accuracy"]["val"]["best"] == {"step": 0, "accuracy": 1.0}
    assert summary["accuracy"]["val"]["last"] == 1.0


def test_micro_batches_train_as_the_whole_step_does(
    motion: Path, encoder: Path, tmp_path: Path
) -> None:
    plain = ["method.model.drop_path=0", "trainer.max_steps=2", "method.optim.clip_grad=0"]
    losses = []
    for at_once in (4, 2):
        run_dir = tmp_path / str(at_once)
        train(
            *(motion, encoder, run_dir, *plain, f"loader.batch_size={at_once}"),
            "method.global_batch_size=4",
        )
        losses.append([row["loss"] for row in read_metrics(run_dir / "student" / "metrics.csv")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_plan_tells_what_a_budget_pays_for(
    motion: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = encoder_forward(SHAPE, 48) + head_forward(SHAPE, HeadShape("time", 2, 3), 48)
    budget = 1000 + 5 * 3 * 4 * clip + 10  # the encoder has cost 1000
    own = ["trainer.max_epochs=50", f"compute.budget={budget}"]
    lists = [f"input_dir={motion / 'train.csv'}", f"checkpoint={encoder}"]
    plan([*SHORT, *lists, *own, "--json"])
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (planned["stages"][0]["steps"], planned["total"]) == (5, 5 * 3 * 4 * clip)
    summary = train(motion, encoder, tmp_path, *own, "method.val=null")
    assert summary["stages"][0]["steps"] == 5
    assert summary["bill"]["total"] == 1000 + planned["total"]
    # Without a validation list the last weights are the result.
    assert "val" not in summary["accuracy"]
    state = outcome.checkpoint(tmp_path / "student")["state_dict"]
    for key, value in load_file(tmp_path / "student" / "head.safetensors").items():
        assert torch.equal(value, state[f"head.{key}"])


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (["checkpoint=''"], ConfigError, r"checkpoint is empty: .*checkpoint=null"),
        (["checkpoint=null"], ConfigError, r"method\.encoder: missing; with checkpoint=null"),
        (["checkpoint=/nowhere"], CheckpointError, r"checkpoint: /nowhere does not exist"),
        (["method.encoder=vit_tiny"], CheckpointError, r"embed_dim=128 instead of 192"),
        (["input_dir=BARE"], DataError, r"input_dir=.*16 unlabelled of 16 videos"),
        (["method.val=MORE"], DataError, r"method\.val=.*has 1 classes that input_dir=.*: left"),
        (["input_dir=ONE"], DataError, r"has 1 classes: expected at least 2"),
        (["method.classes=3"], DataError, r"has 2 classes: expected 3"),
        (["method.val=/nowhere.csv"], DataError, r"method\.val=/nowhere\.csv does not exist"),
        (
            ["method.warm_start=true", "method.pool=attentive"],
            ConfigError,
            r"a linear probe is no start for method\.pool=attentive",
        ),
        (
            ["method.global_batch_size=6", "loader.batch_size=3"],
            ConfigError,
            r"method\.mixup=0\.2 mixes pairs of clips",
        ),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    motion: Path,
    encoder: Path,
    tmp_path: Path,
    overrides: list[str],
    kind: type[SaltError],
    message: str,
) -> None:
    rows = (motion / "train.csv").read_text().splitlines()[1:]
    lists = {
        "BARE": [str(motion / row.split(",")[0]) for row in rows],
        "MORE": [f"{motion / rows[0].split(',')[0]},left", f"{motion / rows[1]}"],
        "ONE": [f"{motion / row}" for row in rows if row.endswith("up")],
    }
    for name, content in lists.items():
        header = "path,label" if name != "BARE" else "path"
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *content]) + "\n")
    given = [
        one.replace(name, f"{tmp_path / name}.csv") if one.endswith(name) else one
        for one in overrides
        for name in [next((name for name in lists if one.endswith(name)), "?")]
    ]
    with pytest.raises(kind, match=message):
        train(motion, encoder, tmp_path / "run", *given)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_hosts_command_fine_tunes(motion: Path, encoder: Path, tmp_path: Path) -> None:
    lists = [f"input_dir={motion / 'train.csv'}", f"method.val={motion / 'val.csv'}"]
    command = [COMMAND, *SHORT, *lists, f"checkpoint={encoder}", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Accuracy: 2 classes; validation" in done.stdout
    assert f"from {encoder}" in done.stderr
