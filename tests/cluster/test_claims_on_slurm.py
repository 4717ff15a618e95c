"""A claim on a real Slurm comes out as it does here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cluster.bench import Bench

pytestmark = pytest.mark.cluster

STUB = Path(__file__).parents[1] / "studies" / "stub_trainer.py"


def test_a_claim_here_and_on_the_cluster(bench: Bench) -> None:
    root, python = bench.pipeline.parent, f"{sys.executable} {STUB}"
    bench.profile_keys(python=python)
    here = root / "here.yaml"
    here.write_text(json.dumps({"kind": "local", "python": python, "array_parallelism": 2}))
    launch = ["launch", "claims/c1", "inputs.seeds=1,2"]
    said = bench.salt(*launch, f"cluster={here}", "--out", "here")
    there = [*launch, f"cluster={bench.profile}", "--out", str(bench.study.root)]
    bench.salt(*there)
    rows = bench.ended()
    assert {row.state for row in rows.values()} == {"finished"}
    assert len(rows) == 2 * 6 + 1
    reports = [study / "c1" / "all" for study in (root / "here", bench.study.root)]
    for name in ("results.csv", "values.csv", "findings.csv", "claim.txt"):
        found = [(folder / name).read_text() for folder in reports]
        assert found[0] == found[1]
    line = (reports[0] / "claim.txt").read_text()
    assert line in said
    assert line in bench.salt(*there)  # nothing is left to do, and it is printed
