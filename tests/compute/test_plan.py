from __future__ import annotations

import math
from typing import Any

import pytest
from lengths import LENGTHS

from salt_plugin.compute.plan import BudgetTooSmallError, plan
from salt_plugin.compute.step_costs import CONVENTIONS
from salt_plugin.compute.workload import Workload
from salt_plugin.config.registry import METHODS, get
from salt_plugin.errors import ConfigError
from salt_plugin.models import EncoderShape, PredictorShape

SHARE = 0.1


def _workload(method: str, encoder: str = "vit_large", teacher: str = "vit_base") -> Workload:
    shapes = EncoderShape.named(encoder), EncoderShape.named(teacher)
    return Workload(get(method), *shapes, PredictorShape(), (8, 14, 14), 3072, LENGTHS)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [1e17, 3.3e18, 1e21])
def test_a_budget_is_spent_to_the_last_step_and_never_beyond(
    budget: float, method: str, convention: str
) -> None:
    workload = _workload(method)
    found = plan(budget, workload, SHARE, convention)
    costs = workload.step_costs(convention)
    assert found.parts == costs.spent(found.steps, found.teacher_steps)
    assert found.total == sum(found.parts.values()) <= budget
    assert sum(costs.spent(found.steps + 1, found.teacher_steps).values()) > budget
    assert (found.method, found.encoder, found.convention) == (method, "vit_large", convention)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_the_teacher_gets_its_share_down_to_whole_steps(share: float) -> None:
    workload = _workload("salt")
    found = plan(1e20, workload, teacher_share=share)
    step = sum(workload.step_costs("exact").teacher.values())
    spent = found.parts["teacher_training"]
    assert spent <= share * 1e20 < spent + step
    assert found.teacher_share == spent / found.total
    assert found.teacher_encoder == "vit_base"


def test_other_methods_have_no_teacher_to_train() -> None:
    for method in ("vjepa", "vjepa2", "videomae"):
        found = plan(1e20, _workload(method), teacher_share=0.5)
        assert found == plan(1e20, _workload(method), teacher_share=0.1)
        assert (found.teacher_steps, found.teacher_share, found.teacher_encoder) == (0, 0.0, None)


def test_the_default_share_is_about_that_of_the_papers_best_split() -> None:
    """40k teacher and 200k student steps of ViT-L, and a student of 160k after 80k."""
    workload = _workload("salt", teacher="vit_large")
    parts = workload.step_costs("paper").spent(200_000, 40_000)
    total = sum(parts.values())
    assert parts["teacher_training"] / total == pytest.approx(0.092, abs=0.001)
    found = plan(total, workload, SHARE, "paper")
    assert found.teacher_steps == pytest.approx(40_000, rel=0.1)
    assert found.steps == pytest.approx(200_000, rel=0.02)


def test_wall_time_is_total_over_throughput() -> None:
    found = plan(1e20, _workload("salt"), SHARE, flops_per_second=5e16)
    assert found.seconds == found.total / 5e16
    assert plan(1e20, _workload("salt"), SHARE).seconds is None


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_that_pays_for_no_step_tells_what_would(method: str) -> None:
    workload = _workload(method)
    with pytest.raises(
        BudgetTooSmallError, match=rf"too small for {method} with vit_large"
    ) as error:
        plan(1e14, workload, SHARE)
    needed = float(str(error.value).split()[-1])
    assert plan(needed, workload, SHARE).steps >= 1
    with pytest.raises(BudgetTooSmallError):
        plan(0.998 * needed, workload, SHARE)


@pytest.mark.parametrize("share", [1e-6, 0.3, 0.999])
def test_what_salt_needs_holds_for_any_share(share: float) -> None:
    workload = _workload("salt")
    with pytest.raises(BudgetTooSmallError, match=r"a step of the teacher vit_base") as error:
        plan(1e14, workload, teacher_share=share)
    needed = float(str(error.value).split()[-1])
    found = plan(needed, workload, teacher_share=share)
    assert found.steps >= 1
    assert found.teacher_steps >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": -1.0}, r"budget=-1\.0: expected more than 0"),
        ({"budget": math.nan}, r"budget=nan"),
        ({"budget": math.inf}, r"budget=inf"),
        ({"teacher_share": 0.0}, r"teacher_share=0\.0: expected more than 0 and less than 1"),
        ({"teacher_share": 1.0}, r"teacher_share=1\.0"),
        ({"flops_per_second": 0.0}, r"flops_per_second=0\.0: expected more than 0"),
    ],
)
def test_numbers_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(**{"budget": 1e20, "workload": _workload("salt"), "teacher_share": SHARE, **changes})
