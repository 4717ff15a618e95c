"""`salt retry`: runs what is missing of a study."""

from __future__ import annotations

from salt_plugin.commands.folder import study_folder_parser
from salt_plugin.commands.launch import raise_failures, run_study
from salt_plugin.studies.snapshot import run_kept_code
from salt_plugin.studies.study import Study


def main(arguments: list[str]) -> None:
    """Submits again what failed, was cancelled or is lost, and what waited for it.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: The folder holds no study, the cluster refuses, or an element failed again.
    """
    description = (
        "Runs what is missing of a study, where it was launched: what is finished, waits or runs "
        "is left alone. Training goes on from its last checkpoint."
    )
    parser = study_folder_parser("retry", description)
    parser.add_argument(
        "--failed",
        action="store_true",
        help="only what has failed and what is based on it, not what was cancelled",
    )
    given = parser.parse_args(arguments)
    study = Study(given.study)
    run_kept_code(study.code, "retry", arguments)
    study.stored()
    with study.claimed():
        raise_failures(run_study(study, given.failed)[0])
