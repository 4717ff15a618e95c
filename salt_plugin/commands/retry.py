"""`salt retry`: runs what is missing of a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from salt_plugin.commands.launch import run_study, tell_failures
from salt_plugin.studies.go import stored_study
from salt_plugin.studies.sbatch import settled
from salt_plugin.studies.snapshot import run_kept_code
from salt_plugin.studies.study import Study
from salt_plugin.studies.undo import claimed


def main(arguments: list[str]) -> None:
    """Submits again what failed, was cancelled or is lost, and what waited for it.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: The folder holds no study, the cluster refuses, or an element failed again.
    """
    given = _parser().parse_args(arguments)
    study = Study(given.study.expanduser().absolute())
    run_kept_code(study.code, "retry", arguments)
    config, cluster = stored_study(study)
    with claimed(study):
        tell_failures(run_study(study, config, settled(cluster), given.failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="salt retry",
        description="Runs what is missing of a study, where it was launched: what is finished, "
        "waits or runs is left alone. Training goes on from its last checkpoint.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="the folder of salt launch")
    parser.add_argument(
        "--failed",
        action="store_true",
        help="only what has failed and what is based on it, not what was cancelled",
    )
    return parser
