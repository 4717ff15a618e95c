"""What `salt flops` and `salt plan` share: their options, the plan of them, and the output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

from rich.table import Table

from salt_plugin.compute.step_costs import CONVENTIONS
from salt_plugin.config import RunConfig, registry
from salt_plugin.config.planning import load_alone
from salt_plugin.report.console import console
from salt_plugin.shapes import ENCODER_SIZES
from salt_plugin.training.plan import RunPlan, plan_run
from salt_plugin.training.run_shapes import run_shapes


def planned(
    given: argparse.Namespace,
    method: str,
    encoder: str,
    teacher: str | None,
    steps: int = 0,
    teacher_steps: int = 0,
    resolution: int | None = None,
    convention: str | None = None,
    budget: float | None = None,
) -> RunPlan:
    """Returns the plan of a run with the clips and steps that were asked for.

    Args:
        given: The options of `add_options`.
        method: Name of the method.
        encoder: Size of what is trained last.
        teacher: Size of SALT's teacher; None for that of the encoder.
        steps: Of the last stage, unless there is a budget.
        teacher_steps: Of the teacher before it.
        resolution: Pixels, in place of `--resolution`.
        convention: In place of `--convention`.
        budget: FLOPs.

    Raises:
        ConfigError: A size or number cannot work, or the budget pays for no step.
    """
    config = deepcopy(_defaults(method))
    node = config.method
    node.encoder, node.clip.frames = encoder, given.frames
    node.clip.size = given.resolution if resolution is None else resolution
    node.global_batch_size, node.mask_group = given.batch_size, given.mask_group
    config.compute.budget = budget
    if hasattr(node, "teacher"):
        node.teacher.encoder, node.teacher.max_steps = teacher or encoder, teacher_steps
        config.compute.teacher_share = getattr(given, "teacher_share", None) or teacher_share()
    return plan_run(config, run_shapes(config), steps, convention=convention or given.convention)


def show(given: argparse.Namespace, result: Any, *shown: str | Table) -> None:
    """Prints a result as JSON where `--json` is given, or else as lines and tables."""
    if given.json:
        print(json.dumps(result))
        return
    out = console()
    for one in shown:
        out.print(one, soft_wrap=isinstance(one, str))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what both commands ask for."""
    sizes = ", ".join(ENCODER_SIZES)
    method = _defaults("salt").method
    parser.add_argument("--encoder", metavar="SIZE", help=f"one of {sizes}")
    parser.add_argument(
        "--teacher-encoder",
        metavar="SIZE",
        help="of the teacher that salt trains first (as --encoder)",
    )
    for key, default, text in (
        ("batch-size", registry.PRINTED_BATCH, "clips of a step on all devices"),
        ("mask-group", method.mask_group, "clips that masks are cut to the shortest of"),
        ("resolution", method.clip.size, "height and width of a clip in pixels"),
        ("frames", method.clip.frames, "of a clip"),
    ):
        parser.add_argument(
            f"--{key}", type=int, default=default, metavar="N", help=f"{text} ({default})"
        )
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="exact (the default): what the tokens cost; paper: 6ND and 2ND",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")


def require_defaults(
    parser: argparse.ArgumentParser, given: argparse.Namespace, options: Iterable[str], why: str
) -> None:
    """Ends the command where one of the options was given, and says why it cannot be."""
    for key in sorted(options):
        if getattr(given, key) != parser.get_default(key):
            parser.error(f"--{key.replace('_', '-')}: {why}")


def teacher_share() -> float:
    """Returns the default of `compute.teacher_share`."""
    return _defaults("salt").compute.teacher_share


@cache
def _defaults(method: str) -> RunConfig:
    return load_alone([f"method={method}"])
