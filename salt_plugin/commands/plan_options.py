"""Configurations from the options of `salt flops` and `salt plan`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from functools import cache

from salt_plugin.compute.step_costs import CONVENTIONS
from salt_plugin.config import RunConfig, registry
from salt_plugin.config.planning import load_alone
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape
from salt_plugin.training.plan import RunPlan, plan_run
from salt_plugin.training.run_shapes import RunShapes, encoder_options, run_shapes


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
    config, shapes = deepcopy(_defaults(method)), _shapes(method)
    node = config.method
    pixels = given.resolution if resolution is None else resolution
    for option, value, unit in (
        ("resolution", pixels, node.model.patch_size),
        ("frames", given.frames, node.model.tubelet_size),
        ("mask-group", given.mask_group, 1),
        ("batch-size", given.batch_size, 1),
    ):
        if value < unit or value % unit:
            expected = f"a multiple of {unit}" if unit > 1 else "at least 1"
            raise ConfigError(f"--{option}={value}: expected {expected}")
    options = encoder_options(config)
    shape = EncoderShape.named(encoder, "--encoder", **options)
    of_teacher = EncoderShape.named(teacher or encoder, "--teacher-encoder", **options)
    shapes = replace(
        shapes,
        encoder=shape,
        teacher=of_teacher if hasattr(node, "teacher") else shape,
        grid=shape.grid(given.frames, pixels, pixels),
    )
    node.global_batch_size, node.mask_group = given.batch_size, given.mask_group
    config.compute.budget = budget
    if hasattr(node, "teacher"):
        node.teacher.max_steps = teacher_steps
        config.compute.teacher_share = getattr(given, "teacher_share", None) or teacher_share()
    return plan_run(config, shapes, steps, convention=convention or given.convention)


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


@cache
def _shapes(method: str) -> RunShapes:
    return run_shapes(_defaults(method))
