"""`salt probe` in processes that were started together equals one process."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from salt_plugin.commands.probe import main
from salt_plugin.errors import SaltError

ARGUMENTS = [
    "random:vit_nano", "--frames=4", "--size=32", "--step=2", "--epochs=2", "--grid=full",
    "--batch-size=4", "--feature-batch-size=4", "--views=2x1", "--keep=time", "--control=frozen",
    "--workers=0", "--protocol=all", "--json",
]  # fmt: skip


def _probe(rank: int, size: int, port: int, log: Path, arguments: list[str]) -> None:
    if size > 1:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            main(arguments)
    except SaltError as error:
        log.with_suffix(f".error{rank}").write_text(str(error))
        sys.exit(1)
    log.with_suffix(f".said{rank}").write_text(text.getvalue())


def probe_together(size: int, log: Path, arguments: list[str]) -> list[int | None]:
    """Returns the exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["salt_plugin.evaluation", "salt_plugin.training.world"])
    processes = [
        context.Process(target=_probe, args=(rank, size, port, log, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


def _said(log: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(log.with_suffix(f".said{rank}").read_text())
    return found


@pytest.mark.slow
def test_two_processes_find_what_one_finds(labelled: Path, tmp_path: Path) -> None:
    lists = [f"--{split}={labelled / split}.csv" for split in ("train", "test")]
    for size in (1, 2):
        given = [*ARGUMENTS, *lists, f"--cache={tmp_path / str(size)}"]
        given += [f"--out={tmp_path / f'out{size}'}"]
        assert probe_together(size, tmp_path / f"log{size}", given) == [0] * size
    assert (tmp_path / "log2.said1").read_text() == ""
    one, two = (_said(tmp_path / f"log{size}", 0) for size in (1, 2))
    assert len(two["attentive"]["grid"]) == 20
    assert one == two
    stores = [sorted(path.name for path in (tmp_path / str(n)).iterdir()) for n in (1, 2)]
    assert stores[0] == stores[1]
    for name in stores[0]:
        for file in ("means.f32", "tokens.f16"):
            alone, together = (tmp_path / n / name / file for n in "12")
            assert alone.read_bytes() == together.read_bytes()


@pytest.mark.slow
def test_probes_with_the_encoder_in_the_loop_are_the_same_in_two_processes(
    labelled: Path, tmp_path: Path
) -> None:
    lists = [f"--{split}={labelled / split}.csv" for split in ("train", "val", "test")]
    given = [*ARGUMENTS[:5], *lists, "--protocol=vjepa2", "--batch-size=5", "--views=2x3"]
    given += ["--workers=0", "--json", "--epochs=1"]
    for size in (1, 2):
        assert probe_together(size, tmp_path / f"log{size}", given) == [0] * size
    one, two = (_said(tmp_path / f"log{size}", 0)["vjepa2"] for size in (1, 2))
    for name in ("accuracy", "grid", "best", "chosen_on"):
        assert one[name] == two[name]


@pytest.mark.slow
def test_a_video_that_one_process_cannot_read_is_named_by_both(
    labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    rows = (labelled / "test.csv").read_text().splitlines()
    lines = [f"{labelled}/{row}\n" for row in rows]
    lines[5] = f"{tmp_path}/bad.mp4 2\n"
    (tmp_path / "test.csv").write_text("".join(lines))
    given = [*ARGUMENTS, f"--train={labelled}/train.csv", f"--test={tmp_path}/test.csv"]
    given += [f"--cache={tmp_path / 'cache'}", "--protocol=knn"]
    assert probe_together(2, tmp_path / "log", given) == [1, 1]
    for rank in (0, 1):
        assert "bad.mp4" in (tmp_path / f"log.error{rank}").read_text()
