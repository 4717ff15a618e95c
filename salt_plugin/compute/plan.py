"""From a budget in FLOPs to steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from salt_plugin.compute.workload import Workload
from salt_plugin.errors import ConfigError


class BudgetTooSmallError(ConfigError):
    """A budget that pays for no step, or not for the teacher's share."""


@dataclass(frozen=True)
class Plan:
    """What a budget pays for.

    Attributes:
        method: The method.
        encoder: Size of what is trained last.
        teacher_encoder: Size of the teacher that is trained first, None where there is none.
        convention: How FLOPs are counted.
        budget: FLOPs that may be spent.
        steps: Of the method's only or last stage.
        teacher_steps: Of the teacher before it, 0 where there is none.
        parts: FLOPs by part; expected ones under `exact`, as mask lengths vary.
        total: Their sum, at most `budget`.
        teacher_share: Share of `total` that trains the teacher.
        seconds: Wall time at the given throughput, None without one.
    """

    method: str
    encoder: str
    teacher_encoder: str | None
    convention: str
    budget: float
    steps: int
    teacher_steps: int
    parts: dict[str, int]
    total: int
    teacher_share: float
    seconds: float | None


def plan(
    budget: float,
    workload: Workload,
    teacher_share: float,
    convention: str = "exact",
    flops_per_second: float | None = None,
) -> Plan:
    """Returns the most steps that a budget pays for.

    Args:
        budget: FLOPs.
        workload: What is trained.
        teacher_share: Share of the budget for SALT's teacher; what is left of it by whole steps
            goes to the student. Not used by other methods.
        convention: `exact` or `paper`.
        flops_per_second: Of all devices together, in the same convention, to tell the wall time.

    Raises:
        ConfigError: A number is out of range.
        BudgetTooSmallError: The budget pays for no step; the message tells what would do.
    """
    _require(0 < budget < math.inf, "budget", budget, "more than 0 FLOPs")
    _require(0 < teacher_share < 1, "teacher_share", teacher_share, "more than 0 and less than 1")
    _require(
        flops_per_second is None or 0 < flops_per_second < math.inf,
        "flops_per_second",
        flops_per_second,
        "more than 0",
    )
    costs = workload.step_costs(convention)
    main, teacher = sum(costs.main.values()), sum(costs.teacher.values())
    teacher_steps = int(budget * teacher_share) // teacher if teacher else 0
    steps = (int(budget) - teacher_steps * teacher) // main
    if steps < 1 or (teacher and teacher_steps < 1):
        raise BudgetTooSmallError(_too_small(budget, workload, main, teacher, teacher_share))
    parts = costs.spent(steps, teacher_steps)
    total = sum(parts.values())
    return Plan(
        method=workload.method.name,
        encoder=workload.encoder.name,
        teacher_encoder=workload.teacher_name,
        convention=convention,
        budget=budget,
        steps=steps,
        teacher_steps=teacher_steps,
        parts=parts,
        total=total,
        teacher_share=parts.get("teacher_training", 0) / total,
        seconds=total / flops_per_second if flops_per_second else None,
    )


def _too_small(
    budget: float, workload: Workload, main: int, teacher: int, teacher_share: float
) -> str:
    name = workload.method.name
    what = f"budget={budget:.4g} is too small for {name} with {workload.encoder.name}"
    batch = f"at a batch of {workload.batch_size:,} clips"
    if not teacher:
        return f"{what}: a step {batch} costs {main:.4g} FLOPs; give at least {_enough(main)}"
    needed = max(teacher / teacher_share, teacher + main, main / (1 - teacher_share))
    return (
        f"{what}: {batch} a step of the teacher {workload.teacher.name} costs {teacher:.4g} FLOPs, "
        f"one of the student {main:.4g}; with teacher_share={teacher_share:g} give at least "
        f"{_enough(needed)}"
    )


def _enough(flops: float) -> str:
    """Returns the number rounded to four digits, but never down."""
    return f"{flops * 1.0005:.4g}"


def _require(good: bool, key: str, found: float | None, expected: str) -> None:
    if not good:
        raise ConfigError(f"{key}={found}: expected {expected}")
