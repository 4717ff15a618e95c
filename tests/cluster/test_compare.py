"""A comparison on a real Slurm gives what it gives here."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.bench import Bench

pytestmark = pytest.mark.cluster

STUB = Path(__file__).parents[1] / "studies" / "stub_trainer.py"


def test_a_comparison_here_and_on_the_cluster(bench: Bench, tiny_videos: Path) -> None:
    root, folder = bench.pipeline.parent, str(tiny_videos)
    lists = {"data": "folder", "train": folder, "test": folder, "frames": 4, "size": 32}
    comparison = {
        "methods": ["salt", "pixel_teacher"],
        "encoders": ["vit_nano"],
        "budgets": [None],
        "seeds": [1, 2],
        "overrides": [f"input_dir={folder}", "trainer.max_steps=3", "loader.batch_size=2"],
        "probe": [{"name": "bees", "protocols": ["linear", "knn"], **lists}],
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(comparison))
    bench.profile_keys(python=f"{sys.executable} {STUB}")
    here = root / "here.yaml"
    here.write_text(json.dumps({"kind": "local", "python": f"{sys.executable} {STUB}"}))
    bench.salt("compare", "tiny.yaml", f"cluster={here}", "--out", "here", "--jobs", "2")
    command = ["compare", "tiny.yaml", f"cluster={bench.profile}", "--out", str(bench.study.root)]
    bench.salt(*command)
    rows = bench.ended()
    assert {row.state for row in rows.values()} == {"finished"}
    assert len(rows) == 2 * 4 + 2 + 1
    found = []
    for out in (root / "here", bench.study.root):
        with (out / "results.csv").open(newline="") as file:
            found.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
        assert (out / "figures" / "accuracy.png").is_file()
    assert found[0] == found[1]
    assert [row["status"] for row in found[0]] == ["done"] * 6
    assert "pixel_teacher" in bench.salt(*command)
