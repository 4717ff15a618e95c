"""`salt cancel`: ends what waits or runs of a study."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from salt_plugin.studies import queue
from salt_plugin.studies.cluster import SLURM
from salt_plugin.studies.slurm import strays
from salt_plugin.studies.states import ACTIVE, rows_of
from salt_plugin.studies.study import Study


def main(arguments: list[str]) -> None:
    """Cancels the jobs of a study, or ends its processes.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: The folder holds no study, or Slurm does not answer.
    """
    given = _parser().parse_args(arguments)
    study = Study(given.study.expanduser().absolute())
    process = study.worked_on_by()
    rows, _ = rows_of(study)
    active = [row for row in rows if row.state in ACTIVE]
    of_slurm = study.stored()["cluster"]["kind"] == SLURM
    if of_slurm or (process is None and study.submissions()):
        with study.claimed():
            jobs = {row.job for row in active if row.job is not None}
            # Whole arrays at once: Slurm takes long over thousands of elements.
            whole = [one for one in study.submissions() if set(one.jobs().values()) <= jobs]
            rest = jobs - {job for one in whole for job in one.jobs().values()}
            queue.cancel([*(one.job for one in whole), *sorted(rest), *strays(study)])
    elif process:
        os.kill(process, signal.SIGTERM)
    if active:
        print(f"cancelled {len(active)} elements; salt retry {study.root} goes on with them")
    else:
        print("nothing of it waits or runs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt cancel",
        description="Cancels what waits or runs of a study. What is finished stays; salt retry "
        "goes on with the rest.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="the folder of salt launch")
    return parser
