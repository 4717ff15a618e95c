"""`salt status`: how the elements of a study are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from salt_plugin.report.console import console
from salt_plugin.report.study import status_table
from salt_plugin.studies.states import counts, rows_of
from salt_plugin.studies.study import Study


def main(arguments: list[str]) -> None:
    """Prints a row for each element.

    Args:
        arguments: The command line after the verb.

    Raises:
        ConfigError: The folder holds no study.
    """
    given = _parser().parse_args(arguments)
    study = Study(given.study.expanduser().absolute())
    rows, remarks = rows_of(study)
    found = counts(rows)
    if given.json:
        listed = [row._asdict() for row in rows]
        result = {"study": str(study.root), "counts": found, "remarks": remarks}
        print(json.dumps(result | {"elements": listed}))
        return
    out = console()
    out.print(status_table([row._asdict() for row in rows], study.root), soft_wrap=True)
    for line in [", ".join(f"{n} {state}" for state, n in found.items()), *remarks]:
        out.print(line, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt status",
        description="Shows each element of a study: state, step, loss, FLOPs, restarts, why it "
        "waits or is over, and its log. Asks Slurm where it is installed.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="the folder of salt launch")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    return parser
