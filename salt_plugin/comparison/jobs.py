"""What is run for each cell of a comparison."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from salt_plugin.comparison.cells import Cell, run_dir_override, train_overrides
from salt_plugin.comparison.directory import ComparisonDirectory
from salt_plugin.comparison.runner import Command, Job
from salt_plugin.config.compare import CompareConfig, evaluations

# Arguments of Python.
TRAIN = ("-m", "salt_plugin.cli", "train")
EVALUATE = ("-m", "salt_plugin.comparison.evaluate")


def training_jobs(
    cells: Sequence[Cell], config: CompareConfig, folder: ComparisonDirectory
) -> list[Job]:
    """Returns a job for each run: it is trained, by the command of the user, and evaluated."""
    jobs = []
    for cell in cells:
        files = folder.cell(cell)
        overrides = [*train_overrides(cell, config), run_dir_override(files.root)]
        train = [sys.executable, *TRAIN, *overrides]
        evaluate = _evaluate(str(files.root), cell.seed, files.probe, config)
        commands = [Command("training", train, files.run.summary), evaluate]
        jobs.append(Job(cell.name, commands, files.log))
    return jobs


def baseline_jobs(
    baselines: Sequence[Cell],
    cells: Sequence[Cell],
    config: CompareConfig,
    folder: ComparisonDirectory,
) -> list[Job]:
    """Returns a job for each encoder before training, where a finished run gives its shape."""
    jobs = []
    for baseline in baselines:
        files = folder.cell(baseline)
        of = (folder.cell(cell).run for cell in cells if cell.encoder == baseline.encoder)
        trained = next((run for run in of if run.finished), None)
        if trained is not None:
            spec = f"random:{trained.result.encoder}"
            command = _evaluate(spec, baseline.seed, files.probe, config)
            jobs.append(Job(baseline.name, [command], files.log))
    return jobs


def _evaluate(encoder: str, seed: int, product: Path, config: CompareConfig) -> Command:
    listed = json.dumps({name: asdict(one) for name, one in evaluations(config).items()})
    arguments = [sys.executable, *EVALUATE, encoder, str(seed), str(product), listed]
    return Command("evaluating", arguments, product)
