"""`salt status`: how the elements of a study are, or the stages of a run."""

from __future__ import annotations

import json
from pathlib import Path

from salt_plugin.commands.folder import study_folder_parser
from salt_plugin.report.console import console
from salt_plugin.report.study_tables import status_table
from salt_plugin.run_directory import RunDirectory
from salt_plugin.studies.states import counts, rows_of, rows_of_run
from salt_plugin.studies.study import Study


def main(arguments: list[str]) -> None:
    """Prints a row for each element or stage.

    Args:
        arguments: The command line after the verb.

    Raises:
        ConfigError: The folder holds neither.
    """
    description = (
        "Shows each element of a study, or each stage of a run: state, step, loss, FLOPs, "
        "restarts, why it waits or is over, and its log. Asks Slurm where a study is there."
    )
    parser = study_folder_parser("status", description)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    given = parser.parse_args(arguments)
    root: Path = given.study
    study, run = Study(root), RunDirectory(root)
    if study.file.is_file() or not run.config.is_file():
        what, (rows, remarks) = "study", rows_of(study)
    else:
        what, rows, remarks = "run", rows_of_run(run), []
    found = counts(rows)
    if given.json:
        listed = [row._asdict() for row in rows]
        result = {what: str(root), "counts": found, "remarks": remarks}
        print(json.dumps(result | {"elements": listed}))
        return
    out = console()
    out.print(status_table([row._asdict() for row in rows], root), soft_wrap=True)
    for line in [", ".join(f"{n} {state}" for state, n in found.items()), *remarks]:
        out.print(line, soft_wrap=True)
