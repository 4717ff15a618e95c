"""The paper's printed totals beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from salt_plugin.compute.step_costs import CONVENTIONS

# SALT's resolution; totals at other resolutions are not comparable.
RESOLUTION = 224


@dataclass(frozen=True)
class Printed:
    """A total that the paper prints.

    Attributes:
        source: Where.
        method: The method.
        encoder: Size of the encoder.
        teacher_encoder: Size of SALT's teacher; None where there is none before.
        steps: Of the main stage.
        teacher_steps: Of the teacher before it.
        resolution: Pixels that the total is charged at.
        printed: The total, in FLOPs.
    """

    source: str
    method: str
    encoder: str
    teacher_encoder: str | None
    steps: int
    teacher_steps: int
    resolution: int
    printed: float


def _salt(encoder: str, printed: float) -> Printed:
    return Printed("totals", "salt", encoder, "vit_large", 160_000, 80_000, 224, printed)


def _vjepa2(
    source: str, encoder: str, resolution: int, printed: float, steps: int = 240_000
) -> Printed:
    return Printed(source, "vjepa2", encoder, None, steps, 0, resolution, printed)


# The paper's accuracy-FLOPs table charges models that were trained at 224 pixels for 256.
ACCURACY_FLOPS = "accuracy-FLOPs"

PRINTED = (
    _salt("vit_large", 1.2e21),
    _salt("vit_huge", 1.5e21),
    _salt("vit_giant", 1.9e21),
    _salt("vit_gigantic", 2.6e21),
    _vjepa2("totals", "vit_large", 224, 1.4e21),
    _vjepa2("totals", "vit_huge", 224, 2.6e21),
    _vjepa2("totals", "vit_large", 256, 1.9e21),
    _vjepa2("totals", "vit_huge", 256, 3.5e21),
    _vjepa2("totals", "vit_giant", 256, 5.3e21),
    _vjepa2(ACCURACY_FLOPS, "vit_large", 256, 1.9e21, 240_000),
    _vjepa2(ACCURACY_FLOPS, "vit_large", 256, 1.26e21, 160_000),
    _vjepa2(ACCURACY_FLOPS, "vit_large", 256, 0.95e21, 120_000),
)


def printed_table(total: Callable[[Printed, int, str], int]) -> list[dict[str, Any]]:
    """Returns every printed total beside ours in both conventions.

    Args:
        total: The FLOPs of a row at a resolution in pixels in a convention.

    Returns:
        Rows with the fields of `Printed`, `paper` and `exact` at the resolution that it is charged
        at, `unequal` where that is not SALT's, and `paper_at_224` and `exact_at_224`.
    """
    return [
        asdict(row)
        | {convention: total(row, row.resolution, convention) for convention in CONVENTIONS}
        | {"unequal": row.resolution != RESOLUTION}
        | {f"{one}_at_{RESOLUTION}": total(row, RESOLUTION, one) for one in CONVENTIONS}
        for row in PRINTED
    ]
