"""Targets of the method's own making: told when they collapse, and where it is written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from salt_plugin.callbacks import Collapse


def _measured(step: int, watched_kd: Tensor | None) -> dict[str, float]:
    collapse = Collapse()
    trainer: Any = SimpleNamespace(global_step=step, is_global_zero=True)
    method: Any = SimpleNamespace(watched_kd=watched_kd)
    batch: Any = None
    collapse.on_train_batch_end(trainer, method, {}, batch, 0)
    return collapse.measured


def test_collapsed_targets_have_no_spread_and_one_direction() -> None:
    same_for_all = torch.randn(1, 16).expand(200, -1)
    measured = _measured(100, same_for_all)
    assert measured["target_spread"] == pytest.approx(0, abs=1e-12)
    assert measured["target_rank"] == pytest.approx(1, abs=1e-6)


def test_targets_along_one_line_have_a_spread_but_one_direction() -> None:
    line = torch.linspace(-1, 1, 200)[:, None] * torch.ones(16)
    measured = _measured(100, line)
    assert measured["target_spread"] > 0.5
    assert measured["target_rank"] == pytest.approx(1, abs=1e-3)


def test_targets_that_use_every_direction_alike_have_full_rank() -> None:
    orthogonal, _ = torch.linalg.qr(torch.randn(200, 16, dtype=torch.float64))
    assert _measured(100, orthogonal)["target_rank"] == pytest.approx(16)


def test_the_first_step_and_every_hundredth_are_measured() -> None:
    targets = torch.randn(50, 8)
    steps = [step for step in range(1, 302) if _measured(step, targets)]
    assert steps == [1, 100, 200, 300]


def test_half_precision_targets_are_measured_in_full() -> None:
    targets = torch.randn(200, 16).bfloat16()
    assert _measured(1, targets) == pytest.approx(_measured(1, targets.double()))


def test_other_methods_are_left_alone() -> None:
    assert _measured(100, None) == {}


def test_targets_that_are_not_finite_are_left_alone() -> None:
    assert _measured(100, torch.full((20, 8), torch.nan)) == {}
