"""`salt compare`: methods at matched FLOPs, probed alike."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from salt_plugin.errors import SaltError
from salt_plugin.report.console import console, show_log

if TYPE_CHECKING:
    from salt_plugin.comparison.cells import Cell
    from salt_plugin.comparison.directory import ComparisonDirectory
    from salt_plugin.config.compare import CompareConfig


def main(arguments: list[str]) -> None:
    """Trains and evaluates what is missing of a comparison, and prints what came out.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A key, or a run's configuration, cannot work; runs do not compare; or some have
            failed.
    """
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: expected at least 1")

    from salt_plugin.comparison.cells import all_cells, baselines
    from salt_plugin.comparison.check import common_settings, compose_cells
    from salt_plugin.comparison.directory import ComparisonDirectory
    from salt_plugin.config.compare import compare_config

    show_log()
    config = compare_config(given.name, given.changes)
    cells = all_cells(config)
    common = common_settings(compose_cells(cells, config))
    folder = ComparisonDirectory(_out(given))
    folder.check(config, common)
    _check_lists(config)
    if given.dry_run:
        _list(cells, config)
        return
    folder.claim(config, common)
    try:
        failed = _train(cells, baselines(config), config, folder, given.jobs)
        result = _gather([*baselines(config), *cells], config, folder, failed)
    finally:
        folder.release()
    if given.json:
        print(json.dumps(result))
    if failed:
        raise SaltError(_of_failed(failed, folder, len(cells)))


def _check_lists(config: CompareConfig) -> None:
    """Finds lists of videos that cannot work before training, not after it."""
    from salt_plugin.config.compare import evaluations
    from salt_plugin.evaluation.lists import read_lists

    for one in evaluations(config).values():
        read_lists(one)


def _list(cells: Sequence[Cell], config: CompareConfig) -> None:
    from salt_plugin.comparison.cells import train_overrides

    for cell in cells:
        print(f"{cell.name}: {shlex.join(train_overrides(cell, config))}")
    print(f"{len(cells)} runs; nothing was trained")


def _train(
    cells: Sequence[Cell],
    random: Sequence[Cell],
    config: CompareConfig,
    folder: ComparisonDirectory,
    at_once: int,
) -> dict[str, str]:
    from salt_plugin.comparison.jobs import baseline_jobs, training_jobs
    from salt_plugin.comparison.runner import run_jobs
    from salt_plugin.report.compare import Lines

    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with Lines(len(cells) + len(random)) as lines:
            failed = run_jobs(training_jobs(cells, config, folder), at_once, lines)
            jobs = baseline_jobs(random, cells, config, folder)
            return failed | run_jobs(jobs, at_once, lines)
    except KeyboardInterrupt:
        finished = sum(folder.cell(cell).probe.is_file() for cell in cells)
        raise SaltError(
            f"stopped with {finished} of {len(cells)} runs finished; the same command goes on"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _gather(
    cells: Sequence[Cell],
    config: CompareConfig,
    folder: ComparisonDirectory,
    failed: dict[str, str],
) -> dict[str, Any]:
    """Writes CSV, table and figures; runs that cannot be compared are added to the failed ones."""
    from salt_plugin.comparison.figures import draw
    from salt_plugin.comparison.results import as_csv, groups, probe_columns, read_rows
    from salt_plugin.files import write_text
    from salt_plugin.report.compare import comparison_table, markdown_table

    rows, unusable = read_rows(cells, config, folder)
    failed |= unusable
    for row, cell in zip(rows, cells, strict=True):
        if cell.name in failed:
            row["status"] = "failed"
    columns = probe_columns(config)
    found = groups(rows, columns)
    write_text(folder.results, as_csv(rows))
    write_text(folder.table, markdown_table(found, columns))
    out = console()
    out.print(comparison_table(found, columns))
    written = [folder.results, folder.table, *draw(rows, found, columns, folder.figures)]
    for path in written:
        out.print(str(path), soft_wrap=True)
    return {"rows": rows, "groups": found, "failed": failed}


def _of_failed(failed: dict[str, str], folder: ComparisonDirectory, total: int) -> str:
    listed = "".join(
        f"\n  {name}: {reason}\n    see: less {shlex.quote(str(folder.root / 'cells' / name))}"
        "/cell.log"
        for name, reason in failed.items()
    )
    return f"{len(failed)} of {total} runs failed; the same command tries them again:{listed}"


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _out(given: argparse.Namespace) -> Path:
    out: Path = given.out or Path("runs") / f"compare-{Path(given.name).stem}"
    return out.expanduser().absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt compare",
        description="Trains methods at matched FLOPs, evaluates the frozen encoders by the same "
        "probes, and writes a CSV row a run, a table and figures. Interrupted, the same command "
        "goes on.",
    )
    parser.add_argument(
        "name",
        metavar="NAME|FILE.yaml",
        help="demo, demo_small, paper, or a .yaml file of keys",
    )
    parser.add_argument(
        "changes", metavar="key=value", nargs="*", help="other values of keys, e.g. seeds=[1,2]"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (runs/compare-NAME)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time, which share the cores (1)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, list the runs, train nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")
    return parser
