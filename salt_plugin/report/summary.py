"""The summary at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from salt_plugin.report.accuracies import caption
from salt_plugin.report.console import console, table
from salt_plugin.report.units import duration, flops


def print_summary(summary: Mapping[str, Any], run_dir: Path) -> None:
    """Prints what was trained, what it cost, where it lies and how to use it.

    Args:
        summary: What `summary.json` holds.
        run_dir: Where it lies now.
    """
    out = console()
    out.print(f"{summary['method']} in {run_dir}", soft_wrap=True)
    stages = table(["stage", "encoder"], ["steps", "loss", "FLOPs", "time"])
    for stage in summary["stages"]:
        stages.add_row(
            stage["stage"],
            stage["encoder"],
            f"{stage['steps']:,}",
            f"{stage['first_loss']:.3f} to {stage['last_loss']:.3f}",
            flops(stage["flops"]),
            duration(stage["seconds"]),
        )
    out.print(stages)
    for stage in summary["stages"]:
        if stage.get("target_rank") is not None:
            out.print(
                f"{stage['stage']}: targets at the last look had a spread of "
                f"{stage['target_spread']:.3f} and an effective rank of {stage['target_rank']:.1f}",
            )
    if "accuracy" in summary:
        out.print(accuracy_line(summary["accuracy"]))
    out.print(f"Bill: {bill_line(summary['bill'])}")
    if summary["probe"]:
        out.print(probe_table(summary["probe"]))
    if summary["skipped_files"]:
        out.print(f"{summary['skipped_files']} files could not be read: see skipped.csv")
    example = summary["example"]
    path = str(run_dir / example["path"])
    out.print(f"Encoder: {path}\n", soft_wrap=True)
    out.print(
        "  from salt_plugin import load_encoder\n"
        f"  encoder = load_encoder({path!r})\n"
        f"  clips = ...  # float {example['clips']}, normalised as ImageNet's\n"
        f"  features = encoder(clips)  # float {example['features']}",
        soft_wrap=True,
    )


def accuracy_line(found: Mapping[str, Any]) -> str:
    """Returns the accuracies of a classifier in words."""
    words = [f"{len(found['classes'])} classes"]
    if val := found.get("val"):
        best = val["best"]
        words.append(
            f"validation {best['accuracy']:.3f} at step {best['step']}, the best, which is kept, "
            f"and {val['last']:.3f} at the last"
        )
    if test := found.get("test"):
        low, high = test["interval"]
        words.append(
            f"test {test['accuracy']:.3f} [{low:.3f}, {high:.3f}], "
            f"{test['segments']} x {test['crops']} views"
        )
    return f"Accuracy: {'; '.join(words)}"


def bill_line(bill: Mapping[str, Any]) -> str:
    """Returns what an encoder has cost in all, by part, in words."""
    parts = ", ".join(
        f"{part.replace('_', ' ')} {flops(count)}" for part, count in bill["parts"].items()
    )
    return f"{flops(bill['total'])} ({bill['convention']}): {parts}"


def probe_table(probe: Mapping[str, Any]) -> Table:
    """Returns the frozen probes of a run as a table.

    Args:
        probe: The `set`, the `chance` of each column, a row of accuracies for each encoder, and
            `clip` and `leaks`, as far as there are any.
    """
    shown = table(
        ["encoder"],
        [column.replace("_", "\n").replace("knn", "k-NN") for column in probe["chance"]],
        title=f"Frozen probes on the test clips of {probe['set']}, accuracy",
        caption=caption(probe["clip"], probe["leaks"]) if "clip" in probe else None,
    )
    for row in probe["rows"]:
        shown.add_row(row["encoder"], *(f"{row[column]:.3f}" for column in probe["chance"]))
    shown.add_section()
    shown.add_row("chance", *(f"{chance:.3f}" for chance in probe["chance"].values()))
    return shown
