"""What training costs, for people: the tables of `salt flops` and `salt plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from salt_plugin.report.console import table
from salt_plugin.report.units import duration, flops, memory

ZETTA = 1e21


def plan_line(stages: Sequence[tuple[str, int, Mapping[str, int]]]) -> str:
    """Returns in a line what a run will train and cost.

    Args:
        stages: Of each its name, its steps, and its expected FLOPs by part.
    """
    costs = [sum(parts.values()) for _, _, parts in stages]
    lines = [
        f"{name} {steps:,} steps, {cost:.4g} FLOPs"
        for (name, steps, _), cost in zip(stages, costs, strict=True)
    ]
    return "; ".join(lines) + (f"; {sum(costs):.4g} in all" if len(stages) > 1 else "")


def bill_table(bill: Mapping[str, Any]) -> Table:
    """Returns a bill as a table.

    Args:
        bill: `total` and `parts`, in FLOPs.
    """
    shown = table(["part"], ["FLOPs", "", "share"], box=box.SIMPLE_HEAD)
    total = bill["total"]
    for part, count in bill["parts"].items():
        share = count / total if total else 0.0
        shown.add_row(part.replace("_", " "), f"{count:.4g}", flops(count), f"{share:.1%}")
    shown.add_section()
    shown.add_row("total", f"{total:.4g}", flops(total), "")
    return shown


def needs_table(result: Mapping[str, Any]) -> Table:
    """Returns what the stages of a run take beside FLOPs as a table.

    Args:
        result: Of `salt plan --json`: `stages` and `devices`.
    """
    stages = result["stages"]
    timed = ["time"] if stages[0]["seconds"] is not None else []
    shown = table(
        ["stage"],
        ["steps", "tokens", "memory", "storage", *timed],
        box=box.SIMPLE_HEAD,
        caption=f"memory: of each of {result['devices']:,} devices; storage: without logs",
    )
    for one in stages:
        shown.add_row(
            one["stage"],
            f"{one['steps']:,}",
            f"{one['tokens']:.4g}",
            memory(one["memory"]["peak"]),
            memory(one["storage"]),
            *([duration(one["seconds"])] if timed else []),
        )
    return shown


def memory_line(stage: Mapping[str, Any]) -> str:
    """Returns in a line what the memory of a stage is made of.

    Args:
        stage: One of `stages` of `salt plan --json`.
    """
    parts = [f"{part} {memory(count)}" for part, count in stage["memory"].items() if part != "peak"]
    return f"memory of the {stage['stage']}: {', '.join(parts)}"


def bills_table(bills: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the bills of several encoders as a table.

    Args:
        bills: `run`, `parts`, `total`, `students` and `shared_total`; None is unknown.
    """
    parts = list(dict.fromkeys(part for bill in bills for part in bill["parts"]))
    totals, caption = ["total"], None
    if any(bill["students"] > 1 for bill in bills):
        totals.append("shared_total")
        caption = "shared: the training of a teacher split among its students here"
    headings = [name.replace("_", "\n") for name in (*parts, *totals)]
    shown = table(["run"], headings, box=box.SIMPLE_HEAD, caption=caption)
    for bill in bills:
        counts = [flops(bill["parts"][part]) if part in bill["parts"] else "-" for part in parts]
        shown.add_row(bill["run"], *counts, *(flops(bill[total]) for total in totals))
    return shown


def printed_totals(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the paper's totals beside ours as a table.

    Args:
        rows: As `compute.printed.printed_table` gives them.
    """
    totals = ("paper", "exact", "paper_at_224", "exact_at_224")
    shown = table(
        ["method", "encoder"],
        ["steps", "px", "printed", *(total.replace("_at_", "\nat ") for total in totals)],
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="! not charged at SALT's 224 px: compare with SALT by the columns at 224",
    )
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        steps = f"{row['steps'] // 1000}k"
        if row["teacher_steps"]:
            steps = f"{row['teacher_steps'] // 1000}k+{steps}"
        shown.add_row(
            row["method"],
            row["encoder"],
            steps,
            f"{row['resolution']}{' !' if row['unequal'] else ''}",
            f"{row['printed'] / ZETTA:.4g}",
            *(f"{row[total] / ZETTA:.3f}" for total in totals),
            end_section=after is not None and after["source"] != row["source"],
        )
    return shown


def plan_table(result: Mapping[str, Any]) -> Table:
    """Returns plans as a table.

    Args:
        result: `plans`, each a row of `salt plan --budget --json`, and `teacher_encoder`, None
            where it is that of the student.
    """
    plans = result["plans"]
    timed = ["time"] if any(one["seconds"] is not None for one in plans) else []
    shown = table(
        ["encoder", "method"],
        ["teacher\nsteps", "steps", "teacher\nshare", *timed],
        caption=f"salt's teacher: {result['teacher_encoder'] or 'of the size of its student'}",
        box=box.SIMPLE_HEAD,
    )
    for one, after in zip(plans, [*plans[1:], None], strict=True):
        has_teacher = one["teacher_encoder"] is not None
        shown.add_row(
            one["encoder"],
            one["method"],
            f"{one['teacher_steps']:,}" if has_teacher else "-",
            f"{one['steps']:,}",
            f"{one['teacher_share']:.3f}" if has_teacher else "-",
            *([duration(one["seconds"])] if timed else []),
            end_section=after is not None and after["encoder"] != one["encoder"],
        )
    return shown
