"""Workloads from the command line, for `salt flops` and `salt plan`."""

from __future__ import annotations

import argparse
from functools import cache
from typing import Any

from salt_plugin.compute.mask_lengths import draw_lengths
from salt_plugin.compute.step_costs import CONVENTIONS
from salt_plugin.compute.workload import Workload
from salt_plugin.config import registry
from salt_plugin.config.planning import video_defaults
from salt_plugin.errors import ConfigError
from salt_plugin.shapes import ENCODER_SIZES, EncoderShape, PredictorShape

# So many batches give the mean cost of a step to about 0.2 %.
DRAWS = 2000
SEED = 0


def workload(
    given: argparse.Namespace,
    method: str,
    encoder: str,
    teacher: str,
    resolution: int | None = None,
) -> Workload:
    """Returns a workload with the clips and batches that were asked for.

    Args:
        given: The options of `add_options`.
        method: Name of the method.
        encoder: Size of what is trained last.
        teacher: Size of SALT's teacher.
        resolution: Pixels, in place of `--resolution`.

    Raises:
        ConfigError: A size or number cannot work.
    """
    node = _defaults(method)["method"]
    model = node["model"]
    tubelet = {"patch_size": model["patch_size"], "tubelet_size": model["tubelet_size"]}
    shape = EncoderShape.named(encoder, "--encoder", **tubelet)
    pixels = given.resolution if resolution is None else resolution
    _check_multiple("resolution", pixels, model["patch_size"])
    _check_multiple("frames", given.frames, model["tubelet_size"])
    _check_multiple("device-batch-size", given.device_batch_size, 1)
    _check_multiple("batch-size", given.batch_size, given.device_batch_size)
    grid = shape.grid(given.frames, pixels, pixels)
    lengths = _lengths(method, grid, given.device_batch_size)
    predictor = {key: model["predictor"][key] for key in ("dim", "depth", "num_heads")}
    return Workload(
        method=registry.get(method),
        encoder=shape,
        teacher=EncoderShape.named(teacher, "--teacher-encoder", **tubelet),
        predictor=PredictorShape(**predictor, num_mask_tokens=len(lengths[0])),
        grid=grid,
        batch_size=given.batch_size,
        lengths=lengths,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what both commands ask for."""
    sizes = ", ".join(ENCODER_SIZES)
    parser.add_argument("--encoder", metavar="SIZE", help=f"one of {sizes}")
    parser.add_argument(
        "--teacher-encoder",
        metavar="SIZE",
        help="of the teacher that salt trains first (as --encoder)",
    )
    for key, default, text in (
        ("batch-size", 3072, "clips of a step on all devices"),
        ("device-batch-size", 24, "clips of one device, which masks are cut to the shortest of"),
        ("resolution", 224, "height and width of a clip in pixels"),
        ("frames", 16, "of a clip"),
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


def _check_multiple(option: str, found: int, unit: int) -> None:
    if found < unit or found % unit:
        expected = f"a multiple of {unit}" if unit > 1 else "at least 1"
        raise ConfigError(f"--{option}={found}: expected {expected}")


def teacher_share() -> float:
    """Returns the default of `compute.teacher_share`."""
    return float(_defaults("salt")["compute"]["teacher_share"])


@cache
def _defaults(method: str) -> dict[str, Any]:
    return video_defaults(method)


@cache
def _lengths(method: str, grid: tuple[int, int, int], batch_size: int) -> Any:
    return draw_lengths(_defaults(method)["method"]["masks"], grid, batch_size, DRAWS, SEED)
