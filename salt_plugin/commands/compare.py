"""`salt compare`: methods at matched FLOPs, probed alike."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import yaml

from salt_plugin.commands.launch import (
    ask_slurm,
    profile_of,
    run_study,
    split_changes,
    study_parser,
)
from salt_plugin.errors import SaltError
from salt_plugin.report.console import console, show_log
from salt_plugin.studies.elements import Element
from salt_plugin.studies.snapshot import run_kept_code
from salt_plugin.studies.study import COMPARISON, Study


def main(arguments: list[str]) -> None:
    """Trains and evaluates what is missing of a comparison, and prints what came out.

    Args:
        arguments: The command line after the verb.

    Raises:
        SaltError: A key, or a run's configuration, cannot work; runs do not compare; the cluster
            refuses; or some have failed.
    """
    description = (
        "Trains methods at matched FLOPs, evaluates the frozen encoders by the same probes, and "
        "writes a CSV row a run, a table and figures. Interrupted, the same command goes on."
    )
    shipped = "demo, demo_grid8, demo_grid8_tuning, demo_small, paper"
    parser = study_parser("compare", description, shipped, "runs/compare-NAME")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time, here (1) or of a stage on the cluster; here they share the cores",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, last")
    given = parser.parse_intermixed_args(arguments)
    name = Path(given.name).stem
    study = Study((given.out or Path("runs") / f"compare-{name}").expanduser().absolute())
    run_kept_code(study.code, "compare", arguments)

    from salt_plugin.config import read_yaml
    from salt_plugin.config.compare import compare_config, evaluations
    from salt_plugin.evaluation.lists import read_lists
    from salt_plugin.studies.comparison import (
        CELLS,
        common_settings,
        differences,
        require_same_rules,
        study_of,
    )
    from salt_plugin.studies.costs import composed_config
    from salt_plugin.studies.report import write_rows

    show_log()
    changes, profile_keys = split_changes(given.changes)
    profile = profile_of(profile_keys, array_parallelism=given.jobs)
    config = compare_config(given.name, changes)
    pipeline, elements = study_of(config, name, study.root)
    runs = [one for one in elements if one.stage == CELLS]
    with nullcontext() if given.dry_run else study.claimed():
        configs = {one.name: composed_config(one) for one in runs}
        common, differing = common_settings(configs), differences(configs, config)
        told = {"common": common, "differing": differing}
        text = yaml.safe_dump({**asdict(config), **told}, sort_keys=False)
        if study.file.is_file():
            require_same_rules(read_yaml(study.root / COMPARISON), config)
        study.plan(pipeline, profile, elements, compare=text)
        for one in evaluations(config).values():
            read_lists(one)
        for key, values in differing.items():
            shown = ", ".join(f"{value} in {arm}" for arm, value in values.items())
            console(stderr=True).print(f"differs by intent: {key}: {shown}", soft_wrap=True)
        if given.dry_run:
            for run in runs:  # without the verb and the folder
                print(f"{run.name}: {shlex.join(run.arguments[1:-1])}")
            print(f"{len(runs)} runs; nothing was trained")
            ask_slurm(study)
            return

        def keep_row(ended: Element) -> None:
            if ended.stage != CELLS:  # a run has its row once it is evaluated
                write_rows(study)

        failed, active = run_study(study, ended=keep_row)
    if not active:
        _print_outcome(study, failed, given.json)


def _print_outcome(study: Study, failed: dict[str, str], as_json: bool) -> None:
    """Prints the table; raises what has failed."""
    from salt_plugin.report.comparison_table import comparison_table
    from salt_plugin.studies.report import conclusions
    from salt_plugin.studies.rows import comparison_rows

    outcome = comparison_rows(study)
    rows, unusable = outcome.rows, outcome.failed
    found, said = conclusions(study, outcome)
    console().print(comparison_table(found["groups"], outcome.columns))
    if said:
        console().print(said, soft_wrap=True)
    console().print(str(study.root / "results.csv"), soft_wrap=True)
    if as_json:
        print(json.dumps({"rows": rows, **found, "failed": unusable}))
    if problems := unusable or failed:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in problems.items())
        raise SaltError(
            f"{len(problems)} of {len(rows)} runs failed; the same command tries them again, "
            f"salt status {shlex.quote(str(study.root))} names their logs:{listed}"
        )
