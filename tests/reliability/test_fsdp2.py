"""Processes that hold a part of the weights each do what one does, and share its checkpoints."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from method_batches import new_method, small_config
from motion import SHORT, write_encoder, write_motion
from ranked import Moment, train_together
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from salt_plugin.config import compose
from salt_plugin.errors import ConfigError
from salt_plugin.run_directory import read_metrics
from salt_plugin.train import run
from salt_plugin.training.sharding import Undivided, divide

FSDP2 = "trainer.strategy=fsdp2"


def trained(size: int, root: Path, overrides: list[str], stopped_at: int | None = None) -> Path:
    """Returns the folder of a run, which goes on there or begins, and is stopped at a step."""
    root.mkdir(exist_ok=True)
    log = root / f"log{len(list(root.iterdir()))}"
    stop = None if stopped_at is None else Moment(0, "student", stopped_at, signal.SIGTERM)
    ended = train_together(size, root / "run", log, overrides, stop)
    expected = 0 if stop is None else os.EX_TEMPFAIL
    assert [one.status for one in ended] == [expected] * size, [one.message for one in ended]
    return root / "run"


def given(videos: Path, method: str) -> list[str]:
    return [
        *(f"method={method}", f"input_dir={videos}", "trainer.max_steps=20"),
        *("method.global_batch_size=4", "loader.batch_size=1"),
        "method.model.drop_path=0",  # drawn by process
        *(["method.teacher.max_steps=20"] if method == "salt" else []),
    ]


def require_alike(one: Path, other: Path, *more: str) -> None:
    """Compares the steps of two runs, and the names and shapes of what they leave."""
    stages = [file.relative_to(one) for file in one.glob("*/metrics.csv")]
    assert stages
    for stage in stages:
        rows = [read_metrics(root / stage) for root in (one, other)]
        assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
        for name in ("loss", "grad_norm", *more):
            expected, found = ([row[name] for row in run if name in row] for run in rows)
            assert found == pytest.approx(expected, rel=1e-5)
            assert expected
        weights, found = (
            load_file(root / stage.with_name("encoder.safetensors")) for root in (one, other)
        )
        assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["salt", pytest.param("vjepa2", marks=pytest.mark.release)])
def test_twenty_steps_are_those_of_one_process(
    method: str, tiny_videos: Path, tmp_path: Path
) -> None:
    """Under `salt`, twenty of the pixel teacher, too."""
    looked_at = [f"method.monitor.{name}={tiny_videos}" for name in ("train", "test")]
    steps = ["method.monitor.every=10", "method.encoders_every_n_steps=10"]
    overrides = [*given(tiny_videos, method), *looked_at, *steps]
    one = trained(1, tmp_path / "1", overrides)
    parts = [FSDP2, "method.model.activation_checkpointing=true"]
    two = trained(2, tmp_path / "2", [*overrides, *parts])
    require_alike(one, two, "monitor_rank", "monitor_target_rank" if method != "salt" else "loss")
    kept = [sorted(p.name for p in run.glob("student/encoders/*")) for run in (one, two)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 4


@pytest.mark.slow
def test_a_checkpoint_goes_on_under_any_strategy(tiny_videos: Path, tmp_path: Path) -> None:
    overrides = given(tiny_videos, "vjepa2")
    whole = trained(1, tmp_path / "whole", overrides)
    root = tmp_path / "changed"
    trained(2, root, [*overrides, FSDP2], stopped_at=5)
    saved = torch.load(root / "run" / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    expected = torch.load(whole / "student" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == expected["state_dict"].keys()
    assert all(type(one) is torch.Tensor for one in saved["state_dict"].values())
    trained(2, root, overrides, stopped_at=10)
    trained(2, root, [*overrides, FSDP2], stopped_at=15)
    require_alike(whole, trained(1, root, overrides))


@pytest.mark.slow
def test_fine_tuning_finds_what_one_process_finds(tmp_path: Path) -> None:
    motion, encoder = write_motion(tmp_path), write_encoder(tmp_path)
    lists = {"input_dir": "train", "method.val": "val", "method.test": "test"}
    overrides = [
        *(one for one in SHORT if not one.startswith("loader.batch_size")),
        *(f"{key}={motion / name}.csv" for key, name in lists.items()),
        *(f"checkpoint={encoder}", "method.global_batch_size=4", "method.model.drop_path=0"),
        *("trainer.max_steps=-1", "method.warm_start=true", "method.encoder=vit_nano"),
        *("method.clip.step=1", "method.clip.size=32", "method.clip.frames=6"),
        "loader.batch_size=2",
    ]
    one = trained(1, tmp_path / "1", overrides)
    two = trained(2, tmp_path / "2", [*overrides, FSDP2])
    require_alike(one, two, "val_accuracy")
    for name in ("accuracy.json", "test.csv", "head.safetensors"):
        assert (two / "student" / name).is_file()
    cards = [json.loads((run / "student" / "head.json").read_text()) for run in (one, two)]
    assert cards[0]["names"] == cards[1]["names"]
    assert (one / "student" / "test.csv").read_text() == (two / "student" / "test.csv").read_text()


@pytest.fixture
def two_processes() -> Iterator[None]:
    """Has torch take this process for the first of two; nothing is sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["pixel_teacher", "salt", "vjepa2", "finetune"])
def test_each_process_holds_its_part_and_a_frozen_teacher_whole(
    name: str, two_processes: None, tiny_videos: Path
) -> None:
    method = new_method(small_config(name, tiny_videos))
    shapes = {key: value.shape for key, value in method.named_parameters()}
    undivided = Undivided(method)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    divide(method, mesh)
    for key, value in method.named_parameters():
        frozen = name == "salt" and key.startswith("teacher.")
        assert isinstance(value, DTensor) != frozen
        if isinstance(value, DTensor):
            assert len(value.to_local()) == -(-len(value) // 2)  # the rest is the other's
    copy = undivided.copy()
    assert {key: value.shape for key, value in copy.named_parameters()} == shapes
    assert not any(isinstance(value, DTensor) for value in copy.parameters())
    if name == "salt":
        assert copy.teacher is method.teacher


@pytest.mark.parametrize(
    ("method", "override", "message"),
    [
        ("levjepa", "loader.batch_size=2", "fsdp2 is not for method=levjepa"),
        ("salt", "method.global_batch_size=3", "3 clips of a step on 2 devices"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    method: str,
    override: str,
    message: str,
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    overrides = [f"method={method}", f"input_dir={tiny_videos}", "loader.batch_size=1", FSDP2]
    more = ["trainer.precision=32", "loader.num_workers=0", "trainer.gpus=0", override]
    with pytest.raises(ConfigError, match=message):
        run(compose([*overrides, *more]), tmp_path)
