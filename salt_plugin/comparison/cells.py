"""The runs of a comparison, as its configuration gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.types import Quote

from salt_plugin.config import registry
from salt_plugin.config.command_line import quoted
from salt_plugin.config.compare import CompareConfig, budget_name

RANDOM = "random"


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


def run_dir_override(folder: Path) -> str:
    """Returns the override that names a run's folder, whatever characters that has."""
    return f"hydra.run.dir={quoted(str(folder), Quote.single)}"
