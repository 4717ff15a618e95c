"""The script for a short time on a GPU is never what fails there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_section_runs_at_the_smallest_size(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--out", tmp_path]
    done = subprocess.run(
        [*map(str, command), "--minutes", "20"], capture_output=True, text=True, timeout=1300
    )
    assert done.returncode == 0, done.stdout
    ended = [line for line in done.stdout.splitlines() if line.startswith("-- ")]
    assert len(ended) == len(list(tmp_path.glob("*-*.txt"))) == 13


@pytest.mark.slow
def test_a_section_that_fails_or_takes_too_long_does_not_stop_the_others(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--device", "nonsense", "--tiny", "--out", tmp_path]
    done = subprocess.run(
        [*map(str, command), "--minutes", "0.25"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "-- matched-budget: no time left" in done.stdout
    assert "not whole: " in done.stderr
    assert "environment" in (tmp_path / "summary.txt").read_text()
