"""What training costs, for people: the tables of `salt flops` and `salt plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from salt_plugin.report.units import duration, flops

ZETTA = 1e21


def plan_line(stages: Sequence[tuple[str, int, Mapping[str, int]]]) -> str:
    """Returns in a line what a run will train and cost.

    Args:
        stages: Of each its name, its steps, and its expected FLOPs by part.
    """
    costs = [sum(parts.values()) for _, _, parts in stages]
    told = [
        f"{name} {steps:,} steps, {cost:.4g} FLOPs"
        for (name, steps, _), cost in zip(stages, costs, strict=True)
    ]
    return "; ".join(told) + (f"; {sum(costs):.4g} in all" if len(stages) > 1 else "")


def bill_table(bill: Mapping[str, Any]) -> Table:
    """Returns a bill as a table.

    Args:
        bill: `total` and `parts`, in FLOPs.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("part", no_wrap=True)
    for column in ("FLOPs", "", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for part, count in bill["parts"].items():
        share = count / bill["total"] if bill["total"] else 0.0
        table.add_row(part.replace("_", " "), f"{count:.4g}", flops(count), f"{share:.1%}")
    table.add_section()
    table.add_row("total", f"{bill['total']:.4g}", flops(bill["total"]), "")
    return table


def bills_table(bills: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the bills of several encoders as a table.

    Args:
        bills: `run`, `parts`, `total`, `students` and `shared_total`; None is unknown.
    """
    shared = any(bill["students"] > 1 for bill in bills)
    parts = list(dict.fromkeys(part for bill in bills for part in bill["parts"]))
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="shared: the training of a teacher split among its students here"
        if shared
        else None,
        caption_justify="left",
    )
    table.add_column("run", overflow="fold")
    names = [part.replace("_", "\n") for part in parts]
    for column in (*names, "total", *(["shared"] if shared else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for bill in bills:
        counts = [flops(bill["parts"][part]) if part in bill["parts"] else "-" for part in parts]
        totals = [bill["total"], *([bill["shared_total"]] if shared else [])]
        table.add_row(bill["run"], *counts, *map(flops, totals))
    return table


def printed_totals(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the paper's totals beside ours as a table.

    Args:
        rows: As `compute.printed.printed_table` gives them.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="! not charged at SALT's 224 px: compare with SALT by the columns at 224",
        caption_justify="left",
    )
    for column in ("method", "encoder"):
        table.add_column(column, no_wrap=True)
    for column in ("steps", "px", "printed", "paper", "exact", "paper\nat 224", "exact\nat 224"):
        table.add_column(column, justify="right", no_wrap=True)
    source = None
    for row in rows:
        if source not in (None, row["source"]):
            table.add_section()
        source = row["source"]
        steps = f"{row['steps'] // 1000}k"
        if row["teacher_steps"]:
            steps = f"{row['teacher_steps'] // 1000}k+{steps}"
        totals = ("paper", "exact", "paper_at_224", "exact_at_224")
        table.add_row(
            row["method"],
            row["encoder"],
            steps,
            f"{row['resolution']}{' !' if row['unequal'] else ''}",
            f"{row['printed'] / ZETTA:.4g}",
            *(f"{row[total] / ZETTA:.3f}" for total in totals),
        )
    return table


def plan_table(result: Mapping[str, Any]) -> Table:
    """Returns plans as a table.

    Args:
        result: `plans`, each as `compute.plan.Plan`, and `teacher_encoder`, None where it is
            that of the student.
    """
    timed = any(one["seconds"] is not None for one in result["plans"])
    table = Table(
        caption=f"salt's teacher: {result['teacher_encoder'] or 'of the size of its student'}",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("encoder", "method"):
        table.add_column(column, no_wrap=True)
    for column in ("teacher\nsteps", "steps", "teacher\nshare", *(["time"] if timed else [])):
        table.add_column(column, justify="right", no_wrap=True)
    encoder = None
    for one in result["plans"]:
        if encoder not in (None, one["encoder"]):
            table.add_section()
        encoder = one["encoder"]
        has_teacher = one["teacher_encoder"] is not None
        table.add_row(
            one["encoder"],
            one["method"],
            f"{one['teacher_steps']:,}" if has_teacher else "-",
            f"{one['steps']:,}",
            f"{one['teacher_share']:.3f}" if has_teacher else "-",
            *([duration(one["seconds"])] if timed else []),
        )
    return table
