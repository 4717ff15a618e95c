"""The figures of runs that were compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_plugin.report.agreement import agreement
from salt_plugin.report.compare_figures import draw_accuracy, draw_allocation, draw_losses
from salt_plugin.studies.comparison import RANDOM
from salt_plugin.studies.results import DONE, pareto


def draw(
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Draws accuracy against FLOPs and loss, and the allocation; nothing where no run is done.

    Args:
        rows: Of runs, as `results.read_rows` gives them.
        found: Their means and deviations, as `results.groups` gives them.
        columns: The accuracies.
        folder: Where to.

    Returns:
        The files.
    """
    trained = [group for group in found if group["method"] != RANDOM]
    if not trained:
        return []
    random = [group for group in found if group["method"] == RANDOM]
    runs = [row for row in rows if row["method"] != RANDOM and row["status"] == DONE]
    frontiers = {
        column: pareto([(group["flops"], group[column]) for group in trained]) for column in columns
    }
    fits = {}
    for method in {row["method"] for row in runs}:
        of = [row for row in runs if row["method"] == method]
        for column in columns:
            fit = agreement([row["loss"] for row in of], [row[column] for row in of])
            fits[method, column] = fit._asdict()
    paths = [folder / f"{name}.png" for name in ("accuracy", "loss", "allocation")]
    draw_accuracy(paths[0], trained, random, columns, frontiers)
    draw_losses(paths[1], runs, columns, fits)
    draw_allocation(paths[2], trained, columns)
    return paths
