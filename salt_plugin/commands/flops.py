"""`salt flops`: what training costs, and has cost; the paper's totals beside ours."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from salt_plugin.commands.plan_options import add_options, planned, require_defaults, show
from salt_plugin.compute import Bill
from salt_plugin.compute.printed import Printed, printed_table
from salt_plugin.config.registry import METHODS, get
from salt_plugin.report.compute import bill_table, bills_table, printed_totals


def main(arguments: list[str]) -> None:
    """Prints a bill, the bills of runs, or the table of the paper's totals.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A size or number cannot work, or a run has no encoder.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.runs:
        others = vars(given).keys() - {"runs", "json"}
        require_defaults(parser, given, others, "a run has its own; leave it out")
        bills = runs_bills(given.runs)
        show(given, bills, "What encoders have cost in all", bills_table(bills))
    elif given.table:
        _check_table(parser, given)
        rows = printed_table(partial(_printed_plan, given))
        title = f"x 1e21 FLOPs, batch {given.batch_size:,}, masks in groups of {given.mask_group}"
        show(given, rows, title, printed_totals(rows))
    else:
        _check(parser, given)
        lengths = (given.steps, given.teacher_steps or 0)
        plan = planned(given, given.method, given.encoder, given.teacher_encoder, *lengths)
        parts = plan.flops()
        bill = {"total": sum(parts.values()), "parts": parts, "convention": given.convention}
        show(given, bill, _title(given), bill_table(bill))


def runs_bills(runs: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the bill of each run, and its share of what students of one teacher split.

    Args:
        runs: Run directories or encoder files.

    Returns:
        For each: `run`, `convention`, `parts` and `total`; `students`, how many of the runs learnt
        from its teacher, and `shared_total`, with the teacher's training split among them. What
        nobody has counted is None.

    Raises:
        CheckpointError: A run has no finished encoder of ours.
    """
    from salt_plugin.checkpoints import find_encoder, read_card

    cards = [read_card(find_encoder(run)) for run in runs]
    students = Counter(card.get("teacher_fingerprint") for card in cards)
    found = []
    for run, card in zip(runs, cards, strict=True):
        stored = (card.get("compute") or {}).get("bill")
        # An encoder without a ledger: its own training, too, is unknown.
        bill = Bill(stored["parts"] if stored else {"student": None})
        teacher = card.get("teacher_fingerprint")
        among = students[teacher] if teacher else 1
        shared = bill.shared(among).total
        found.append({"run": run, **bill.as_dict(), "students": among, "shared_total": shared})
    return found


def _printed_plan(given: argparse.Namespace, row: Printed, pixels: int, convention: str) -> int:
    lengths = (row.steps, row.teacher_steps, pixels, convention)
    plan = planned(given, row.method, row.encoder, row.teacher_encoder, *lengths)
    return sum(plan.flops().values())


def _check_table(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    own = ("method", "encoder", "teacher_encoder", "steps", "teacher_steps")
    others = (*own, "batch_size", "resolution", "frames", "convention")
    require_defaults(parser, given, others, "--table is of the paper's own runs")


def _check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    for key in ("encoder", "steps"):
        if getattr(given, key) is None:
            parser.error(f"--{key} is required (or --table)")
    if get(given.method).teacher and given.teacher_steps is None:
        parser.error(f"--teacher-steps is required with --method {given.method}")
    if not get(given.method).teacher and (given.teacher_steps or given.teacher_encoder):
        parser.error(f"{given.method} trains no teacher first; that is of --method salt")
    for key in ("steps", "teacher_steps"):
        if (getattr(given, key) or 0) < 0:
            parser.error(f"--{key.replace('_', '-')}: expected 0 or more")


def _title(given: argparse.Namespace) -> str:
    teacher = ""
    if get(given.method).teacher:
        teacher = f", {given.teacher_steps:,} of {given.teacher_encoder or given.encoder} before"
    return (
        f"{given.method}, {given.encoder}, {given.steps:,} steps{teacher}, batch "
        f"{given.batch_size:,}, {given.frames} frames at {given.resolution} px, "
        f"{given.convention} convention"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt flops",
        description="Counts the FLOPs of training by part, before it is started; one multiply-add "
        "is two. What is not given is as in the paper's runs. With RUN, tells what was spent.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="run directories or encoder files: what they have cost in all, teachers included",
    )
    # What a classifier costs depends on its lists and its encoder: `salt plan` reads them.
    names = [spec.name for spec in METHODS.values() if not spec.classifies]
    parser.add_argument("--method", choices=names, default="salt", help="(salt by default)")
    parser.add_argument("--steps", type=int, metavar="N", help="of the only or last stage")
    parser.add_argument(
        "--teacher-steps", type=int, metavar="N", help="of the teacher that salt trains first"
    )
    add_options(parser)
    parser.add_argument(
        "--table",
        action="store_true",
        help="the totals that the paper prints beside ours, in both conventions",
    )
    return parser
