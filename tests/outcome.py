"""What a run has left behind, read without knowing what made it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

from salt_plugin.checkpoints import read_card

# What no two runs have alike, in metrics and in checkpoints.
TIMES = {"seconds", "data_seconds", "clips_per_second", "peak_memory_mib"}
# Nor these, where they lie in different folders: of the encoders that they come from.
UNLIKE = TIMES | {"path"}


def saved_step(stage: Path, name: str = "last.ckpt") -> int:
    """Returns the steps in a checkpoint of a stage."""
    return int(torch.load(stage / "checkpoints" / name, weights_only=True)["global_step"])


def checkpoint(stage: Path) -> Any:
    """Returns what the last checkpoint of a stage holds."""
    return torch.load(stage / "checkpoints" / "last.ckpt", weights_only=True)


def tensors(content: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """Returns the tensors in nested content, by their dotted names."""
    if isinstance(content, torch.Tensor):
        return {prefix: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found: dict[str, torch.Tensor] = {}
    for key, value in items:
        if isinstance(value, dict | list | tuple | torch.Tensor):
            found |= tensors(value, f"{prefix}.{key}")
    return found


def equal(one: Any, other: Any) -> bool:
    """Compares nested content, but times and paths; tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        keys = one.keys() - UNLIKE
        return keys == other.keys() - UNLIKE and all(equal(one[key], other[key]) for key in keys)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def fingerprint(stage: Path) -> str:
    """Returns that of the encoder that a stage has left."""
    return str(read_card(stage / "encoder.safetensors")["fingerprint"])


def rows(stage: Path) -> list[dict[str, str]]:
    """Returns the rows of a stage's metrics as they stand there, but times."""
    with (stage / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in TIMES}
            for row in csv.DictReader(file)
        ]


def steps(stage: Path) -> list[int]:
    """Returns the steps that have a row in a stage's metrics."""
    return [int(row["step"]) for row in rows(stage)]


def require_same(one: Path, other: Path, *stages: str) -> None:
    """Checks that two runs have the same encoders, accounts and metrics."""
    for stage in stages:
        first, second = one / stage, other / stage
        assert fingerprint(first) == fingerprint(second)
        assert rows(first) == rows(second)
        ledgers = [json.loads((root / "compute.json").read_text()) for root in (first, second)]
        assert equal(*ledgers)


def skipped(run_dir: Path) -> dict[str, str]:
    """Returns the files that a run has skipped, with the reason of each; each is there once."""
    with (run_dir / "skipped.csv").open(errors="surrogateescape", newline="") as file:
        listed = [(row["path"], row["reason"]) for row in csv.DictReader(file)]
    assert len(dict(listed)) == len(listed)
    return dict(listed)
