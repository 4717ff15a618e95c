"""`salt plan`: the steps and the price of a run, or of what a budget pays for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from salt_plugin.commands.plan_options import (
    add_options,
    planned,
    require_defaults,
    show,
    teacher_share,
)
from salt_plugin.config import RunConfig, load_config
from salt_plugin.config.command_line import check_overrides
from salt_plugin.config.planning import load_alone
from salt_plugin.config.registry import METHODS
from salt_plugin.report.compute import (
    bill_table,
    memory_line,
    needs_table,
    plan_line,
    plan_table,
)
from salt_plugin.run_directory import RunDirectory
from salt_plugin.shapes import ENCODER_SIZES
from salt_plugin.training.footprint import stage_memory, stage_storage, stage_tokens
from salt_plugin.training.plan import (
    BudgetTooSmallError,
    RunPlan,
    StagePlan,
    global_batch_size,
    plan_configured,
)


def main(arguments: list[str]) -> None:
    """Prints the plan of one run, or those of all methods at one budget.

    Args:
        arguments: The command line after the verb.

    Raises:
        ConfigError: A key, size or number cannot work, or the budget pays for nothing.
    """
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    if given.budget is not None and given.run:
        parser.error("--budget makes a table of all methods; for one run give compute.budget=FLOPS")
    if given.budget is None:
        _check_run(parser, given)
        _print_run(given)
    else:
        _print_table(given)


def _print_run(given: argparse.Namespace) -> None:
    config = _config(given.run)
    config.method.global_batch_size = global_batch_size(config, given.devices)
    plan = plan_configured(config)
    parts = plan.flops()
    stages = [(stage.name, stage.steps, stage.flops()) for stage in plan.stages]
    result: dict[str, Any] = {
        "method": config.method.name,
        "clips_a_step": config.method.global_batch_size,
        "devices": given.devices,
        "stages": [_needs(given, config, plan, stage) for stage in plan.stages],
        "parts": parts,
        "total": sum(parts.values()),
        "inherited": plan.inherited,
    }
    before = [
        f"{part.replace('_', ' ')} before: {'unknown' if count is None else f'{count:.4g} FLOPs'}"
        for part, count in plan.inherited.items()
    ]
    title = f"{config.method.name}, {config.method.global_batch_size:,} clips a step"
    before += map(memory_line, result["stages"])
    shown = (plan_line(stages), bill_table(result), needs_table(result))
    show(given, result, title, *shown, *before)


def _needs(
    given: argparse.Namespace, config: RunConfig, plan: RunPlan, stage: StagePlan
) -> dict[str, Any]:
    memory, flops = stage_memory(config, stage, given.devices), sum(stage.flops().values())
    return {
        "stage": stage.name,
        "steps": stage.steps,
        "flops": flops,
        "tokens": stage_tokens(stage),
        "memory": {"peak": sum(memory.values()), **memory},
        "storage": stage_storage(config, stage, memory, stage is plan.stages[-1]),
        "seconds": flops / given.flops_per_second if given.flops_per_second else None,
    }


def _config(given: list[str]) -> RunConfig:
    """Returns the configuration of a run directory, or of overrides as training takes them."""
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).is_dir()):
        stored = RunDirectory(Path(given[0])).stored_config()
        # Earlier versions masked the clips of a device together.
        stored["method"].setdefault("mask_group", stored.get("loader", {}).get("batch_size"))
        return load_config(OmegaConf.create(stored), foreign=False)
    check_overrides(given)
    return load_alone(given)


def _print_table(given: argparse.Namespace) -> None:
    encoders = [given.encoder] if given.encoder else list(ENCODER_SIZES)
    plans, too_small = [], []
    for encoder in encoders:
        for method in (spec.name for spec in METHODS.values() if spec.planned):
            try:
                plans.append(_row(given, method, encoder))
            except BudgetTooSmallError as error:
                too_small.append(f"{method} with {encoder}: {error}")
    # In the table of all encoders, what the budget is too small for is a line below.
    if too_small and (given.encoder or not plans):
        raise BudgetTooSmallError(too_small[0])
    asked = ("budget", "convention", "teacher_encoder", "resolution", "frames", "batch_size")
    result = {key: getattr(given, key) for key in (*asked, "mask_group")}
    result |= {"plans": plans, "too_small": too_small}
    title = (
        f"{given.budget:.4g} FLOPs, {given.convention} convention, {given.frames} frames at "
        f"{given.resolution} px, batch {given.batch_size:,}, masks in groups of {given.mask_group}"
    )
    show(given, result, title, plan_table(result), *too_small)


def _row(given: argparse.Namespace, method: str, encoder: str) -> dict[str, Any]:
    plan = planned(given, method, encoder, given.teacher_encoder, budget=given.budget)
    parts = plan.flops()
    total = sum(parts.values())
    *before, last = plan.stages
    first: Any = before[0] if before else None
    return {
        "method": method,
        "encoder": encoder,
        "teacher_encoder": first.pricing.shapes.encoder.name if first else None,
        "steps": last.steps,
        "teacher_steps": first.steps if first else 0,
        "parts": parts,
        "total": total,
        "teacher_share": sum(first.flops().values()) / total if first else 0.0,
        "seconds": total / given.flops_per_second if given.flops_per_second else None,
    }


def _check_run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if not given.run:
        parser.error("give the overrides of a training command, a run directory, or --budget")
    others = vars(given).keys() - {"run", "devices", "flops_per_second", "json"}
    require_defaults(parser, given, others, "of --budget; a run has keys for it")


def _number(
    kind: Callable[[str], float], works: Callable[[float], bool], expected: str
) -> Callable[[str], float]:
    """Returns the type of an option: a number for which a test holds."""

    def read(text: str) -> float:
        value = kind(text)
        if not works(value):
            raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
        return value

    return read


_positive = _number(float, lambda value: 0 < value < math.inf, "more than 0")
_share = _number(float, lambda value: 0 < value < 1, "more than 0 and less than 1")
_devices = _number(int, lambda value: value >= 1, "at least 1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt plan",
        description="Tells the steps, FLOPs, tokens, memory and storage of a run before it is "
        "trained: of a training command by its overrides, or of a run directory. With --budget, "
        "tells how many steps of each method it pays for at equal resolution; without --encoder "
        "for all encoders.",
    )
    parser.add_argument(
        "run",
        metavar="key=value | RUN",
        nargs="*",
        help="as for salt train; input_dir only where trainer.max_epochs ends training",
    )
    parser.add_argument(
        "--devices", type=_devices, default=1, metavar="N", help="that train together (1)"
    )
    parser.add_argument("--budget", type=_positive, metavar="FLOPS", help="e.g. 1e21")
    add_options(parser)
    parser.add_argument(
        "--teacher-share",
        type=_share,
        metavar="SHARE",
        help=f"of the budget, for salt's teacher ({teacher_share():g})",
    )
    parser.add_argument(
        "--flops-per-second",
        type=_positive,
        metavar="F",
        help="throughput of all devices together, to tell the wall time",
    )
    return parser
