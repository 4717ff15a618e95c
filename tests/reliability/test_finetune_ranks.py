"""Fine-tuning in two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from motion import SHORT, write_encoder, write_motion
from ranked import train_together

from salt_plugin.run_directory import read_metrics


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    motion, encoder = write_motion(tmp_path), write_encoder(tmp_path)
    lists = {"input_dir": "train", "method.val": "val", "method.test": "test"}
    given = [
        *(one for one in SHORT if not one.startswith("loader.batch_size")),
        *(f"{key}={motion / name}.csv" for key, name in lists.items()),
        *(f"checkpoint={encoder}", "method.global_batch_size=4", "method.model.drop_path=0"),
        *("trainer.max_steps=-1", "method.warm_start=true", "method.encoder=vit_nano"),
        *("method.clip.step=1", "method.clip.size=32", "method.clip.frames=6"),
    ]
    rows = {}
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        whole = [*given, f"loader.batch_size={4 // size}"]
        ended = train_together(size, folder / "run", folder / "log", whole)
        assert [one.status for one in ended] == [0] * size, ended[0].message
        rows[size] = read_metrics(folder / "run" / "student" / "metrics.csv")
    for name in ("loss", "grad_norm", "val_accuracy"):
        one, two = ([row[name] for row in rows[size] if name in row] for size in (1, 2))
        assert two == pytest.approx(one, rel=1e-3)
    for name in ("accuracy.json", "test.csv"):
        texts = [(tmp_path / str(size) / "run" / "student" / name).read_text() for size in (1, 2)]
        assert texts[0] == texts[1]
    ledgers = [
        json.loads((tmp_path / str(size) / "run" / "student" / "compute.json").read_text())
        for size in (1, 2)
    ]
    assert ledgers[0]["evaluation"]["flops"] == ledgers[1]["evaluation"]["flops"]
