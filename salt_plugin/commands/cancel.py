"""`salt cancel`: ends what waits or runs of a study."""

from __future__ import annotations

import os
import signal

from salt_plugin.commands.folder import study_folder_parser
from salt_plugin.studies.cluster import SLURM
from salt_plugin.studies.slurm_commands import cancel
from salt_plugin.studies.states import ACTIVE, rows_of
from salt_plugin.studies.study import Study
from salt_plugin.studies.submission import strays


def main(arguments: list[str]) -> None:
    """Cancels the jobs of a study, or ends its processes.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: The folder holds no study, or Slurm does not answer.
    """
    description = (
        "Cancels what waits or runs of a study. What is finished stays; salt retry goes on with "
        "the rest."
    )
    given = study_folder_parser("cancel", description).parse_args(arguments)
    study = Study(given.study)
    process = study.worked_on_by()
    rows, _ = rows_of(study)
    active = [row for row in rows if row.state in ACTIVE]
    of_slurm = study.stored()["cluster"]["kind"] == SLURM
    if of_slurm or (process is None and study.submissions()):
        with study.claimed():
            # Whole arrays at once: Slurm takes long over thousands of elements.
            jobs = dict.fromkeys(row.job.partition("_")[0] for row in active if row.job)
            cancel([*jobs, *strays(study)])
    elif process:
        os.kill(process, signal.SIGTERM)
    if active:
        print(f"cancelled {len(active)} elements; salt retry {study.root} goes on with them")
    else:
        print("nothing of it waits or runs")
