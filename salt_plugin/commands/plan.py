"""`salt plan`: the steps that a budget pays for, for each method."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from salt_plugin.commands.workloads import add_options, teacher_share, workload
from salt_plugin.compute.plan import BudgetTooSmallError, plan
from salt_plugin.config.registry import METHODS
from salt_plugin.report.compute import plan_table
from salt_plugin.report.console import console
from salt_plugin.shapes import ENCODER_SIZES


def main(arguments: list[str]) -> None:
    """Prints the plans of all methods for one encoder, or for all.

    Args:
        arguments: The command line after the verb.

    Raises:
        ConfigError: A size or number cannot work, or the budget pays for nothing.
    """
    given = _parser().parse_args(arguments)
    encoders = [given.encoder] if given.encoder else list(ENCODER_SIZES)
    plans, too_small = [], []
    for encoder in encoders:
        for method in (spec.name for spec in METHODS.values() if spec.planned):
            try:
                plans.append(_plan(given, method, encoder))
            except BudgetTooSmallError as error:
                # In the table of all encoders, what the budget is too small for is a line below.
                if given.encoder:
                    raise
                too_small.append(str(error))
    if not plans:
        raise BudgetTooSmallError(too_small[0])
    result = {
        "budget": given.budget,
        "convention": given.convention,
        "teacher_encoder": given.teacher_encoder,
        "resolution": given.resolution,
        "frames": given.frames,
        "batch_size": given.batch_size,
        "device_batch_size": given.device_batch_size,
        "plans": plans,
        "too_small": too_small,
    }
    if given.json:
        print(json.dumps(result))
    else:
        out = console()
        out.print(
            f"{given.budget:.4g} FLOPs, {given.convention} convention, {given.frames} frames at "
            f"{given.resolution} px, batch {given.batch_size:,}, "
            f"{given.device_batch_size} a device",
            soft_wrap=True,
        )
        out.print(plan_table(result))
        for line in too_small:
            out.print(line, soft_wrap=True)


def _plan(given: argparse.Namespace, method: str, encoder: str) -> dict[str, Any]:
    teacher = given.teacher_encoder or encoder
    planned = plan(
        given.budget,
        workload(given, method, encoder, teacher),
        teacher_share() if given.teacher_share is None else given.teacher_share,
        given.convention,
        given.flops_per_second,
    )
    return asdict(planned)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt plan",
        description="Tells how many steps of each method a budget pays for, at equal resolution; "
        "without --encoder for all encoders.",
    )
    parser.add_argument("--budget", type=float, required=True, metavar="FLOPS", help="e.g. 1e21")
    add_options(parser)
    parser.add_argument(
        "--teacher-share",
        type=float,
        metavar="SHARE",
        help="of the budget, for salt's teacher (that of compute.teacher_share)",
    )
    parser.add_argument(
        "--flops-per-second",
        type=float,
        metavar="F",
        help="throughput of all devices together, to tell the wall time",
    )
    return parser
