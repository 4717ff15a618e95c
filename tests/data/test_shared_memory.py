"""Too little shared memory is found before training, and not by a batch that never comes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from namespaces import salt_in_namespace
from small_run import TINY

from salt_plugin.config import compose
from salt_plugin.errors import ConfigError
from salt_plugin.train import run

MIB = 2**20


def probe(videos: Path, cache: Path, size: int, batch: int) -> list[str]:
    lists = ["--train", str(videos), "--test", str(videos), "--cache", str(cache)]
    clip = ["--frames", "8", "--size", str(size), "--step", "1"]
    rest = ["--protocol", "knn", "--workers", "2", "--feature-batch-size", str(batch)]
    return ["probe", "random:vit_nano", *lists, *clip, *rest]


@pytest.mark.slow
def test_docker_s_64_megabytes_are_told_apart_from_enough(
    tiny_videos: Path, tmp_path: Path
) -> None:
    # 12 clips of 8 x 224 x 224 take 13.8 MiB, and 5 batches are under way at a time.
    large = ["method.clip.size=224", "method.clip.frames=8", "loader.batch_size=12"]
    train = ["train", "method=pixel_teacher", f"input_dir={tiny_videos}", *TINY, *large]
    train += ["loader.num_workers=2", f"hydra.run.dir={tmp_path / 'run'}", "trainer.gpus=0"]
    refused, one_batch, small = salt_in_namespace(
        [
            train,
            probe(tiny_videos, tmp_path / "one", 224, 6),
            probe(tiny_videos, tmp_path / "small", 32, 2),
        ],
        mount="-t tmpfs -o size=64m tmpfs /dev/shm",
    )
    assert refused.status == 1
    assert "need 69 MiB of shared memory and it has 64 MiB free" in refused.errors
    assert "--shm-size=128m" in refused.errors
    assert "loader.num_workers=0" in refused.errors
    assert not (tmp_path / "run" / "teacher").exists()
    # All six videos are in one batch: no more than that can be under way.
    assert one_batch.status == 0, one_batch.errors
    assert small.status == 0, small.errors


def test_a_probe_is_refused_too(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from salt_plugin.commands.probe import main

    _let_be_free(monkeypatch, 64)
    with pytest.raises(ConfigError, match=r"need 115 MiB .* has 64 MiB free.*--workers 0"):
        main([*probe(tiny_videos, tmp_path, 224, 3)[1:], "--views", "5x1"])


@pytest.mark.parametrize(
    ("free", "loader", "ranks", "refused"),
    [
        (69, ["num_workers=2"], 1, False),
        (68, ["num_workers=2"], 1, True),
        (100, ["num_workers=2"], 2, True),
        (0, ["num_workers=0"], 1, False),
        (125, ["num_workers=2", "prefetch_factor=4"], 1, False),
        (124, ["num_workers=2", "prefetch_factor=4"], 1, True),
    ],
)
def test_what_batches_need_is_counted_for_every_process_of_the_machine(
    tiny_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    loader: list[str],
    ranks: int,
    refused: bool,
) -> None:
    class TrainingBeginsError(Exception):
        pass

    def begin(*_: Any) -> None:
        raise TrainingBeginsError

    _let_be_free(monkeypatch, free)
    monkeypatch.setattr("salt_plugin.train.training_videos", begin)
    if ranks > 1:
        for name, value in {"RANK": 0, "WORLD_SIZE": ranks, "LOCAL_RANK": 0}.items():
            monkeypatch.setenv(name, str(value))
    large = ["method.clip.size=224", "method.clip.frames=8", "loader.batch_size=12"]
    keys = ["method=pixel_teacher", f"input_dir={tiny_videos}", *TINY, *large, "trainer.gpus=0"]
    cfg = compose([*keys, *(f"loader.{setting}" for setting in loader)])
    with pytest.raises(ConfigError if refused else TrainingBeginsError) as error:
        run(cfg, tmp_path / "run")
    if refused:
        assert "shared memory" in str(error.value)


def _let_be_free(monkeypatch: pytest.MonkeyPatch, mebibytes: int) -> None:
    real = os.statvfs

    def found(path: Any) -> Any:
        if path == "/dev/shm":
            return SimpleNamespace(f_bavail=mebibytes, f_frsize=MIB)
        return real(path)

    monkeypatch.setattr(os, "statvfs", found)
