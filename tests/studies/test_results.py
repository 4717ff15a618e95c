"""Numbers of a comparison, on rows worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from salt_plugin.report.comparison_figures import pareto
from salt_plugin.report.comparison_table import markdown_table
from salt_plugin.studies.report import PARTS, groups


def row(method: str, budget: float, seed: int, flops: int, accuracy: float) -> dict[str, Any]:
    parts = {f"flops_{part}": None for part in PARTS} | {"flops_student": flops}
    share = 0.1 if method == "salt" else None
    key = {
        "arm": method,
        "method": method,
        "encoder": "vit_nano",
        "teacher_share": share,
        "budget": budget,
    }
    return {**key, "seed": seed, "status": "done", "flops": flops, **parts, "bees_knn": accuracy}


ROWS = [
    row("salt", 1e13, 1, 90, 0.25),
    row("vjepa", 1e13, 1, 95, 0.5),
    row("salt", 1e13, 2, 94, 0.5),
    row("salt", 1e13, 3, 98, 0.75),
    {**row("vjepa", 1e13, 2, 95, 1.0), "status": "failed"},
]


def test_mean_and_deviation_over_the_seeds_that_are_done() -> None:
    salt, vjepa = groups(ROWS, ["bees_knn"])
    assert (salt["method"], salt["teacher_share"], salt["n"], salt["flops"]) == ("salt", 0.1, 3, 94)
    assert (salt["bees_knn"], salt["bees_knn_sd"]) == (0.5, 0.25)
    assert (salt["parts"]["student"], salt["parts"]["ema"]) == (94, 0)
    assert (vjepa["n"], vjepa["bees_knn"], vjepa["bees_knn_sd"]) == (1, 0.5, None)


def test_the_table_as_it_is_written() -> None:
    table = markdown_table(groups(ROWS, ["bees_knn"]), ["bees_knn"])
    assert table == (
        "| method | encoder | teacher share | budget | spent | seeds | bees_knn |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| salt | vit_nano | 0.1 | 10 TFLOP | 94 FLOP | 3 | 0.500 ± 0.250 |\n"
        "| vjepa | vit_nano |  | 10 TFLOP | 95 FLOP | 1 | 0.500 |\n"
    )


@pytest.mark.parametrize(
    ("points", "on"),
    [
        ([(1, 0.5)], [True]),
        ([(1, 0.5), (2, 0.6), (3, 0.55)], [True, True, False]),
        ([(2, 0.5), (1, 0.5)], [False, True]),  # dearer and no better
        ([(1, 0.4), (1, 0.5)], [False, True]),  # as dear and worse
        ([(1, 0.5), (1, 0.5)], [True, True]),
        ([(3, 0.9), (1, 0.1), (2, 0.95)], [False, True, True]),
    ],
)
def test_the_pareto_frontier(points: list[tuple[float, float]], on: list[bool]) -> None:
    assert pareto(points) == on
