"""What came out of a comparison: a row for each run, means over seeds, figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

from salt_plugin.config.compare import CompareConfig
from salt_plugin.config.typed import typed
from salt_plugin.config.yaml_file import read_yaml
from salt_plugin.files import write_text
from salt_plugin.report.compare import markdown_table
from salt_plugin.studies.attempts import FAILED, ElementDirectory
from salt_plugin.studies.comparison import BASELINES, CELLS, PROBES, all_cells, baselines
from salt_plugin.studies.results import DONE, Row, as_csv, groups, probe_columns, read_rows
from salt_plugin.studies.study import COMPARISON


class Outcome(NamedTuple):
    """What came out.

    Attributes:
        rows: Of runs and baselines.
        groups: What the seeds have in common, as `results.groups` returns it.
        columns: The accuracies.
        failed: The reason of each run or baseline that has none, by its name.
    """

    rows: list[Row]
    groups: list[dict[str, Any]]
    columns: list[str]
    failed: dict[str, str]


def outcome(root: Path) -> Outcome:
    """Reads the folder of a comparison."""
    stored = read_yaml(root / COMPARISON)
    stored.pop("common")
    config: CompareConfig = typed(CompareConfig, stored, "compare.")
    cells = [*baselines(config), *all_cells(config)]
    rows, failed = read_rows(cells, config, root)
    for row, cell in zip(rows, cells, strict=True):
        if row["status"] == DONE:
            continue
        for stage in (CELLS, PROBES, BASELINES):
            reason = ElementDirectory(root / stage / cell.name).reason(FAILED)
            if reason is not None:
                failed.setdefault(cell.name, reason)
        if cell.name in failed:
            row["status"] = "failed"
    columns = probe_columns(config)
    return Outcome(rows, groups(rows, columns), columns, failed)


def main(folder: str) -> None:
    """Writes `results.csv`, `table.md` and the figures of a comparison.

    Args:
        folder: Of the comparison.
    """
    from salt_plugin.studies.figures import draw

    root = Path(folder)
    found = outcome(root)
    results, table = root / "results.csv", root / "table.md"
    write_text(results, as_csv(found.rows))
    write_text(table, markdown_table(found.groups, found.columns))
    for path in [results, table, *draw(found.rows, found.groups, found.columns, root / "figures")]:
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
