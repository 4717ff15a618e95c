"""`salt compare`: methods at matched FLOPs, probed alike."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from salt_plugin.commands.launch import ask_slurm, profile_of, run_study, settings_of
from salt_plugin.errors import SaltError
from salt_plugin.files import write_text
from salt_plugin.report.console import console, show_log
from salt_plugin.studies.snapshot import run_kept_code
from salt_plugin.studies.states import ACTIVE, rows_of
from salt_plugin.studies.study import COMPARISON, Study
from salt_plugin.studies.undo import claimed

if TYPE_CHECKING:
    from salt_plugin.config.compare import CompareConfig
    from salt_plugin.studies.comparison import Cell


def main(arguments: list[str]) -> None:
    """Trains and evaluates what is missing of a comparison, and prints what came out.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A key, or a run's configuration, cannot work; runs do not compare; the cluster
            refuses; or some have failed.
    """
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    if given.jobs is not None and given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: expected at least 1")
    name = Path(given.name).stem
    study = Study((given.out or Path("runs") / f"compare-{name}").expanduser().absolute())
    run_kept_code(study.code, "compare", arguments)

    from salt_plugin.config.compare import compare_config
    from salt_plugin.studies.comparable import common_settings, compose_cells
    from salt_plugin.studies.comparison import CELLS, all_cells, study_of

    show_log()
    changes, cluster = settings_of(given.changes)
    profile = profile_of(*cluster, array_parallelism=given.jobs)
    config = compare_config(given.name, changes)
    cells = all_cells(config)
    composed = compose_cells(cells, config)
    common = common_settings(composed)
    pipeline, elements = study_of(config, name, study.root)
    study.check(elements)
    _check_lists(config)
    if given.dry_run:
        _list(cells, config)
        ask_slurm(pipeline, elements, profile)
        return
    with claimed(study, elements):
        study.write(pipeline, profile, elements, {CELLS: composed[cells[0]]})
        text = yaml.safe_dump({**asdict(config), "common": common}, sort_keys=False)
        write_text(study.root / COMPARISON, text)
        failed = run_study(study, pipeline, profile)
    if not any(row.state in ACTIVE for row in rows_of(study)[0]):
        _tell(study, failed, given.json)


def _tell(study: Study, failed: dict[str, str], as_json: bool) -> None:
    """Prints the table, and what has failed."""
    from salt_plugin.report.compare import comparison_table
    from salt_plugin.studies.gather import outcome

    found = outcome(study.root)
    out = console()
    out.print(comparison_table(found.groups, found.columns))
    out.print(str(study.root / "results.csv"), soft_wrap=True)
    if as_json:
        print(json.dumps({"rows": found.rows, "groups": found.groups, "failed": found.failed}))
    if problems := found.failed or failed:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in problems.items())
        raise SaltError(
            f"{len(problems)} of {len(found.rows)} runs failed; the same command tries them again, "
            f"salt status {shlex.quote(str(study.root))} names their logs:{listed}"
        )


def _check_lists(config: CompareConfig) -> None:
    """Finds lists of videos that cannot work before training, not after it."""
    from salt_plugin.config.compare import evaluations
    from salt_plugin.evaluation.lists import read_lists

    for one in evaluations(config).values():
        read_lists(one)


def _list(cells: Sequence[Cell], config: CompareConfig) -> None:
    from salt_plugin.studies.comparison import train_overrides

    for cell in cells:
        print(f"{cell.name}: {shlex.join(train_overrides(cell, config))}")
    print(f"{len(cells)} runs; nothing was trained")


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
        "changes",
        metavar="key=value",
        nargs="*",
        help="other values of keys, e.g. seeds=[1,2]; cluster=local (the default), debug, slurm or "
        "a .yaml file of keys; cluster.KEY=VALUE",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (runs/compare-NAME)")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time, here (1) or of a stage on the cluster; here they share the cores",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, list the runs, train nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")
    return parser
