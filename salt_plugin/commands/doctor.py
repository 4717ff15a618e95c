"""`salt doctor`: how fast a run would be on this machine, and what would help."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from salt_plugin.commands.plan_options import show
from salt_plugin.config.command_line import check_overrides
from salt_plugin.config.planning import load_alone
from salt_plugin.report.console import table
from salt_plugin.report.units import duration, flops

if TYPE_CHECKING:
    from salt_plugin.config import RunConfig
    from salt_plugin.training.doctor import Examined

# From this share of a step on, waiting for clips is worth a line.
_WAITS = 0.1


def main(arguments: list[str]) -> None:
    """Measures the first steps of each stage, and prints what the whole run will take.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A key or value cannot work, or the run fails.
    """
    given = _parser().parse_intermixed_args(arguments)
    check_overrides(given.run)
    config = load_alone(given.run)

    import torch

    from salt_plugin.training.doctor import examine, prepared
    from salt_plugin.training.execution import (
        check_execution,
        devices,
        slow_bfloat16,
        uses_gpu,
    )
    from salt_plugin.training.footprint import modelled_batch
    from salt_plugin.training.labelled import settled
    from salt_plugin.training.largest_batch import largest_batch

    config = settled(config)
    run = prepared(config)
    check_execution(config)
    stages = list(examine(given.run, run, given.seconds))
    if uses_gpu(config):
        fits = largest_batch(run, torch.device("cuda"))
    else:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        fits = modelled_batch(config, run.plan, devices(config), room)
    hints = _hints(config, stages, fits, devices(config))
    if slow_bfloat16(config):
        hints.append("trainer.precision=32: this CPU has no instructions for bfloat16")
    result = {
        "clips_a_step": config.method.global_batch_size,
        "stages": [{**stage._asdict(), "clips_per_second": stage.rate} for stage in stages],
        "seconds": sum(stage.seconds for stage in stages),
        "flops": sum(stage.flops for stage in stages),
        "largest_batch": fits,
        "hints": hints,
    }
    names = ("clips/s", "step alone", "loader alone", "waiting", "peak", "steps", "FLOPs", "time")
    rows = table(("stage",), names)
    for stage in stages:
        rates = (f"{rate:,.1f}" for rate in (stage.rate, stage.step, stage.loader))
        took = f"{stage.waited:.0%}", f"{stage.peak_mib / 2**10:.1f} GiB", f"{stage.steps:,}"
        rows.add_row(stage.name, *rates, *took, flops(stage.flops), duration(stage.seconds))
    lines = [
        f"Training takes {duration(result['seconds'])} ({result['seconds'] / 86400:.2g} days) and "
        f"{flops(result['flops'])}; starting {duration(stages[0].start)} more, evaluations "
        "and figures not counted",
        f"The largest batch that fits, of 1, 2, 4 and so on: {fits} clips at once",
    ]
    show(given, result, rows, *lines, *hints)


def _hints(config: RunConfig, stages: list[Examined], fits: int, devices: int) -> list[str]:
    """Returns a line for each key that would help."""
    hints, loader, cores = [], config.loader, os.cpu_count() or 1
    worst = max(stages, key=lambda stage: stage.waited)
    if worst.waited > _WAITS:
        key = "smaller videos (docs/data.md): reading is what training waits for"
        if 0 <= loader.num_workers < cores - 1:
            key = f"loader.num_workers={cores} or -1: one worker a core; it is {loader.num_workers}"
        elif not config.method.data.cache:
            key = "method.data.cache=true, where the decoded videos fit into memory; or " + key
        hints.append(f"The {worst.name} waits {worst.waited:.0%} of its time for clips: {key}")
    own = -(-config.method.global_batch_size // devices)
    if fits < min(own, loader.batch_size):
        hints.append(f"loader.batch_size={fits}, or method.model.activation_checkpointing=true")
    elif min(fits, own) > loader.batch_size:
        hints.append(f"loader.batch_size={min(fits, own)}: fewer, larger micro-batches of a step")
    elif fits >= 2 * own and config.method.model.activation_checkpointing:
        hints.append("method.model.activation_checkpointing=false: there is memory to spare")
    return hints


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt doctor",
        description="Makes the first steps of each stage of a run on this machine, in a folder "
        "that is removed, and tells clips/s, memory and the time of the whole run, and which key "
        "would help. Takes less than two minutes.",
    )
    parser.add_argument("run", metavar="key=value", nargs="+", help="as for salt train")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=20.0,
        metavar="S",
        help="of training, for each stage (20)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")
    return parser


def _seconds(text: str) -> Any:
    if not 1 <= float(text) <= 600:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to 600")
    return float(text)
