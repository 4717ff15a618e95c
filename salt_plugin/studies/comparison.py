"""A comparison as a study: the runs that its configuration gives, and what comes after them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from salt_plugin.config import registry
from salt_plugin.config.compare import CompareConfig, budget_name, evaluations
from salt_plugin.studies.elements import Element, run_dir_override
from salt_plugin.studies.pipeline import REPORT, TRAIN, PipelineConfig, StageConfig

RANDOM = "random"

# Its stages, and the folder of its runs.
CELLS, PROBES, BASELINES = "cells", "probes", "baselines"
PRODUCT = "probe.json"


class Cell(NamedTuple):
    """One run.

    Attributes:
        method: Its method; `random` for an encoder that was not trained.
        encoder: Its size.
        budget: Its FLOPs; None where its steps end it, 0 for `random`.
        seed: Of the run.
        teacher_share: Share of the budget that the teacher of SALT gets; None for other methods and
            without a budget.
    """

    method: str
    encoder: str
    budget: float | None
    seed: int
    teacher_share: float | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        parts = [self.method, self.encoder, f"s{self.seed}"]
        if self.method != RANDOM:
            parts.insert(2, budget_name(self.budget))
        if self.teacher_share is not None:
            parts.append(f"t{self.teacher_share:g}")
        return "-".join(parts)


def all_cells(config: CompareConfig) -> list[Cell]:
    """Returns the runs in the order of training: one seed of everything, then the next."""
    return [
        Cell(method, encoder, budget, seed, share)
        for seed in config.seeds
        for budget in config.budgets
        for encoder in config.encoders
        for method in config.methods
        for share in _shares(config, method, budget)
    ]


def _shares(config: CompareConfig, method: str, budget: float | None) -> Sequence[float | None]:
    splits = registry.get(method).teacher is not None and budget is not None
    return config.teacher_shares if splits else [None]


def baselines(config: CompareConfig) -> list[Cell]:
    """Returns the encoders before training; none where they are not asked for."""
    if not config.baseline:
        return []
    return [
        Cell(RANDOM, encoder, 0.0, seed) for encoder in config.encoders for seed in config.seeds
    ]


def train_overrides(cell: Cell, config: CompareConfig) -> list[str]:
    """Returns a run as overrides, but for its folder. A comparison evaluates its runs itself."""
    overrides = [f"method={cell.method}", f"method.encoder={cell.encoder}", f"seed={cell.seed}"]
    overrides += [*config.overrides, *config.method_overrides.get(cell.method, [])]
    if cell.budget is not None:
        overrides.append(f"compute.budget={cell.budget!r}")
    if cell.teacher_share is not None:
        overrides.append(f"compute.teacher_share={cell.teacher_share!r}")
    return [*overrides, "method.probe=null"]


def study_of(config: CompareConfig, name: str, root: Path) -> tuple[PipelineConfig, list[Element]]:
    """Returns a comparison as a study: its runs, their evaluations, the baselines', a report.

    Args:
        config: The comparison.
        name: Of the study.
        root: Its folder.
    """
    stages = {
        CELLS: StageConfig("train"),
        PROBES: StageConfig("probe", needs=CELLS),
        BASELINES: StageConfig("probe", after=[CELLS]),
        REPORT: StageConfig("report", after=[CELLS, PROBES, BASELINES]),
    }
    runs = root / CELLS
    settings = [
        f"{evaluation}.{key}={json.dumps(value)}"
        for evaluation, one in evaluations(config).items()
        for key, value in asdict(one).items()
    ]

    def evaluation(stage: str, cell: Cell, parent: str | None, *encoder: str) -> Element:
        product = f"product={runs / cell.name / PRODUCT}"
        arguments = [product, f"seed={cell.seed}", *encoder, *settings]
        return Element(stage, cell.name, {}, parent, "salt_plugin.studies.evaluate", arguments)

    def training(cell: Cell) -> Element:
        train = [TRAIN, *train_overrides(cell, config), run_dir_override(runs / cell.name)]
        return Element(CELLS, cell.name, {}, None, "salt_plugin.cli", train)

    trained = [(cell, training(cell)) for cell in all_cells(config)]
    elements = [
        *(one for _, one in trained),
        *(evaluation(PROBES, cell, one.id, f"encoder={runs / cell.name}") for cell, one in trained),
        *(
            evaluation(BASELINES, cell, None, f"random_of={runs}", f"size={cell.encoder}")
            for cell in baselines(config)
        ),
        Element(REPORT, "all", {}, None, "salt_plugin.studies.gather", [str(root)]),
    ]
    return PipelineConfig(name=name, stages=stages), elements
